import functools
import os
import shutil
import subprocess
from xml.etree import ElementTree as ET

import h5py
import ismrmrd
import numpy as np
import pytest

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import ConfigError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.simulate import simulate_scan
from recon_node.simulate.geometry import orientation

SMALL = {"matrix": 64, "slices": 2, "phases": 4, "coils": 3, "seed": 7}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """One small Siemens scan at 4x random: (path, truth path)."""
    folder = tmp_path_factory.mktemp("scan")
    simulate_scan(folder / "raw.h5", truth=folder / "truth.h5", acceleration=4, **SMALL)
    return folder / "raw.h5", folder / "truth.h5"


@functools.cache
def read(path):
    """Header document, heads and samples as `ismrmrd.Dataset` gives them."""
    data = ismrmrd.Dataset(str(path), create_if_needed=False)
    header = ismrmrd.xsd.CreateFromDocument(data.read_xml_header())
    readouts = [data.read_acquisition(i) for i in range(data.number_of_acquisitions())]
    data.close()
    return header, readouts


def split(readouts):
    noise = [a for a in readouts if a.isFlagSet(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    return noise, readouts[len(noise) :]


def whitener(header, noise, dwell_us):
    """Inverse Cholesky factor for imaging lines, by the rule of dwell times and receiver bandwidth."""
    samples = np.concatenate([a.data for a in noise], axis=1).astype(np.complex128)
    covariance = samples @ samples.conj().T / samples.shape[1]
    ratio = header.acquisitionSystemInformation.relativeReceiverNoiseBandwidth
    return np.linalg.inv(np.linalg.cholesky(covariance)) * np.sqrt(dwell_us / noise[0].sample_time_us * ratio)


def sorted_slice(path, number, conjugate):
    """Whitened k-space `(phase, coil, ky, kx)` and sampled lines `(phase, ky)` of one slice."""
    header, readouts = read(path)
    noise, lines = split(readouts)
    encoded = header.encoding[0].encodedSpace.matrixSize
    matrix = whitener(header, noise, lines[0].sample_time_us)
    kspace = np.zeros((SMALL["phases"], len(matrix), encoded.y, encoded.x), np.complex128)
    seen = np.zeros((SMALL["phases"], encoded.y), bool)
    for a in lines:
        if a.idx.slice == number:
            kspace[a.idx.phase, :, a.idx.kspace_encode_step_1] = matrix @ a.data
            seen[a.idx.phase, a.idx.kspace_encode_step_1] = True
    kspace = kspace.conj() if conjugate else kspace
    image = centred_ifft(kspace, axes=(-1,))
    start = encoded.x // 2 - header.encoding[0].reconSpace.matrixSize.x // 2
    return centred_fft(image[..., start : start + SMALL["matrix"]], axes=(-1,)), seen


def test_the_python_reader_finds_noise_scan_header_and_every_sampled_line(scan):
    header, readouts = read(scan[0])
    noise, lines = split(readouts)
    with h5py.File(scan[1]) as truth:
        sampled = truth["mask"][()].any(axis=-1)
    assert len(noise) > 0
    assert {a.active_channels for a in readouts} == {SMALL["coils"]}
    wanted = {tuple(map(int, index)) for index in np.argwhere(sampled)}
    found = [(a.idx.slice, a.idx.phase, a.idx.kspace_encode_step_1) for a in lines]
    assert len(found) == len(wanted)
    assert set(found) == wanted
    assert [a.scan_counter for a in readouts] == list(range(len(readouts)))
    space = header.encoding[0]
    assert space.encodedSpace.matrixSize.x == 2 * space.reconSpace.matrixSize.x == lines[0].number_of_samples
    assert space.encodedSpace.fieldOfView_mm.x == 2 * space.reconSpace.fieldOfView_mm.x
    assert noise[0].sample_time_us != lines[0].sample_time_us


@pytest.mark.parametrize("vendor", ["Siemens", "GE"])
def test_whitened_lines_are_the_truth_plus_unit_noise_in_the_orientation_of_the_vendor(tmp_path, vendor):
    simulate_scan(tmp_path / "r.h5", truth=tmp_path / "t.h5", acceleration=4, vendor=vendor, **SMALL)
    kspace, seen = sorted_slice(tmp_path / "r.h5", 1, conjugate=vendor == "Siemens")
    with h5py.File(tmp_path / "t.h5") as truth:
        clean = centred_fft(truth["maps"][1][None] * truth["images"][1][:, None])
    error = np.moveaxis(kspace - clean, 1, 2)[seen]
    rows = np.abs(np.nonzero(seen)[1] - SMALL["matrix"] // 2)
    outer = np.moveaxis(error[rows > 16], 1, 0).reshape(SMALL["coils"], -1)
    covariance = outer @ outer.conj().T / outer.shape[1]
    assert np.abs(covariance - np.eye(SMALL["coils"])).max() < 0.06
    signal = np.moveaxis(clean, 1, 2)[seen]
    assert np.linalg.norm(error) < 0.05 * np.linalg.norm(signal)


def test_receiver_noise_is_correlated_between_coils(scan):
    _, readouts = read(scan[0])
    noise, _ = split(readouts)
    samples = np.concatenate([a.data for a in noise], axis=1)
    correlation = np.abs(np.corrcoef(samples))
    assert correlation[~np.eye(len(correlation), dtype=bool)].max() > 0.05


def test_flags_mark_first_and_last_lines_and_the_calibration_block(scan):
    _, readouts = read(scan[0])
    _, lines = split(readouts)
    flags = np.array([a.flags for a in lines], np.uint64)

    def count(flag):
        return int(np.sum((flags & np.uint64(flag)) != 0))

    assert count(Flag.FIRST_IN_SLICE) == count(Flag.LAST_IN_SLICE) == SMALL["slices"]
    assert count(Flag.FIRST_IN_PHASE) == count(Flag.LAST_IN_PHASE) == SMALL["slices"] * SMALL["phases"]
    assert count(Flag.FIRST_IN_REPETITION) == count(Flag.LAST_IN_REPETITION) == 1
    assert count(Flag.LAST_IN_MEASUREMENT) == 1
    assert flags[-1] & np.uint64(Flag.LAST_IN_MEASUREMENT)
    assert count(Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING) == 20 * SMALL["slices"] * SMALL["phases"]
    for a in lines:
        inside = 22 <= a.idx.kspace_encode_step_1 < 42
        assert a.isFlagSet(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING) == inside


def test_time_stamps_count_from_the_r_wave_in_units_of_2_5_ms(scan):
    _, readouts = read(scan[0])
    _, lines = split(readouts)
    with h5py.File(scan[1]) as truth:
        trigger, rr = truth["trigger_times_ms"][()], truth.attrs["rr_interval_ms"]
    since = np.array([a.physiology_time_stamp[0] for a in lines]) * 2.5
    phase = np.array([a.idx.phase for a in lines])
    window = rr / SMALL["phases"]
    assert np.all(since >= trigger[phase] - 1.25)
    assert np.all(since <= trigger[phase] + window + 1.25)
    clock = np.array([a.acquisition_time_stamp for a in lines])
    waves = np.unique(clock - np.array([a.physiology_time_stamp[0] for a in lines]))
    beats = np.diff(waves) * 2.5
    assert np.abs(beats[beats < 2000] - rr).max(initial=0) <= 2.5
    assert np.all(np.diff(clock) >= 0)


def test_slices_form_a_stack_along_their_normal(scan):
    _, readouts = read(scan[0])
    _, lines = split(readouts)
    with h5py.File(scan[1]) as truth:
        spacing = truth.attrs["slice_spacing_mm"]
    heads = {a.idx.slice: a for a in lines}
    first, second = (np.array(heads[i].position[:]) for i in (0, 1))
    read_dir, phase_dir, normal = (
        np.array(getattr(heads[0], name)[:]) for name in ("read_dir", "phase_dir", "slice_dir")
    )
    basis = np.stack([read_dir, phase_dir, normal])
    assert np.allclose(basis @ basis.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(basis) == pytest.approx(1, abs=1e-5)
    step = second - first
    assert np.linalg.norm(step) == pytest.approx(spacing, rel=1e-5)
    assert np.allclose(np.abs(step @ normal), spacing, rtol=1e-5)
    assert step[0] > 0  # the apex lies to the patient's left,
    assert step[1] < 0  # in front
    assert step[2] < 0  # and below the base


@pytest.mark.parametrize("view", ["short-axis", "long-axis"])
def test_orientations_are_orthonormal_and_right_handed(view):
    turn = orientation(view)
    basis = np.stack([turn.read, turn.phase, turn.normal])
    assert np.allclose(basis @ basis.T, np.eye(3))
    assert np.linalg.det(basis) == pytest.approx(1)


def test_the_long_axis_picture_holds_the_axis_that_the_short_axis_one_is_normal_to():
    short, long = orientation("short-axis"), orientation("long-axis")
    assert long.normal @ short.normal == pytest.approx(0, abs=1e-12)
    apex = -short.normal
    assert apex @ long.read > 0  # to the right
    assert apex @ long.phase < 0  # and up in the picture


def test_flow_slices_lie_above_the_valves(tmp_path):
    options = SMALL | {"slices": 1, "phases": 3}
    simulate_scan(
        tmp_path / "r.h5", truth=tmp_path / "t.h5", modality="phase contrast", view="through-plane", **options
    )
    with h5py.File(tmp_path / "t.h5") as truth:
        assert truth["lv"][()].max() == 0
        assert truth.attrs["view"] == "through-plane"


def test_the_header_fits_the_schema_and_says_what_scanners_say(scan):
    header, _ = read(scan[0])
    system = header.acquisitionSystemInformation
    assert system.systemVendor == "SIEMENS"
    assert system.systemModel.startswith("MAGNETOM ")
    assert system.systemFieldStrength_T == pytest.approx(2.89362)
    assert system.receiverChannels == SMALL["coils"] == len(system.coilLabel)
    assert header.subjectInformation.patientName == "Phantom^Heart"
    uid = header.studyInformation.studyInstanceUID
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    limits = header.encoding[0].encodingLimits
    assert (limits.slice.maximum, limits.phase.maximum) == (1, 3)
    assert limits.kspace_encoding_step_1.center == SMALL["matrix"] // 2
    assert header.encoding[0].parallelImaging.accelerationFactor.kspace_encoding_step_1 == 4
    assert header.sequenceParameters.TR[0] > header.sequenceParameters.TE[0] > 0


@pytest.mark.parametrize(
    ("vendor", "field", "written"),
    [("Siemens", 1.5, 1.494), ("Siemens", 0.55, 0.55), ("UIH", 5.0, 5.0), ("Philips", 3.0, 3.0)],
)
def test_each_field_strength_is_written_as_its_scanners_do(tmp_path, vendor, field, written):
    simulate_scan(tmp_path / "r.h5", vendor=vendor, field=field, **(SMALL | {"slices": 1, "phases": 1}))
    with h5py.File(tmp_path / "r.h5") as file:
        root = ET.fromstring(file["dataset/xml"][0])
    assert float(root.findtext(".//{*}systemFieldStrength_T")) == pytest.approx(written)
    resonance = float(root.findtext(".//{*}H1resonanceFrequency_Hz"))
    assert resonance == pytest.approx(42.577e6 * written, rel=1e-4)


def test_pseudo_radial_lines_are_exactly_zero_outside_the_mask(tmp_path):
    simulate_scan(tmp_path / "r.h5", truth=tmp_path / "t.h5", pattern="radial", acceleration=16, **SMALL)
    _, readouts = read(tmp_path / "r.h5")
    _, lines = split(readouts)
    with h5py.File(tmp_path / "t.h5") as truth:
        mask = truth["mask"][()]
    assert mask.mean() < 0.6
    for a in lines:
        sampled = mask[a.idx.slice, a.idx.phase, a.idx.kspace_encode_step_1]
        assert np.array_equal(np.all(a.data != 0, axis=0), sampled)


def test_the_same_seed_writes_the_same_arrays_and_another_seed_others(tmp_path):
    def arrays(name, seed):
        simulate_scan(tmp_path / name, truth=tmp_path / f"t{name}", **(SMALL | {"seed": seed}))
        with h5py.File(tmp_path / name) as file, h5py.File(tmp_path / f"t{name}") as truth:
            rows = file["dataset/data"][()]
            return (
                rows["head"].tobytes(),
                b"".join(r.tobytes() for r in rows["data"]),
                file["dataset/xml"][0],
                truth["images"][()].tobytes(),
            )

    first, again, other = arrays("a", 3), arrays("b", 3), arrays("c", 4)
    assert first == again
    assert all(x != y for x, y in zip(first[1:], other[1:], strict=True))


def test_truth_states_the_ejection_fraction_of_its_volumes(scan):
    with h5py.File(scan[1]) as truth:
        lv = truth["lv_volume_ml"][()]
        assert truth.attrs["lvef_percent"] == pytest.approx(100 * (1 - lv.min() / lv.max()))
        assert truth["images"].dtype == np.complex64
        assert truth["images"].shape == (2, 4, 64, 64)
        assert truth["maps"].shape == (2, 3, 64, 64)
        assert 40 < truth.attrs["myocardial_mass_g"] < 250
        assert truth.attrs["vendor"] == "Siemens"


def test_ejection_fraction_from_a_full_stack_of_masks_is_the_stated_one(tmp_path):
    simulate_scan(
        tmp_path / "r.h5",
        truth=tmp_path / "t.h5",
        **(SMALL | {"slices": 12, "phases": 8, "matrix": 96, "coils": 1}),
        breathing_mm=0.0,
    )
    with h5py.File(tmp_path / "t.h5") as truth:
        voxel_ml = truth.attrs["pixel_mm"] ** 2 * truth.attrs["slice_spacing_mm"] / 1000
        volume = truth["lv"][()].sum(axis=(0, 2, 3)) * voxel_ml
        stated = truth["lv_volume_ml"][()]
        found = 100 * (1 - volume.min() / volume.max())
        assert np.allclose(volume, stated, rtol=0.06)
        assert abs(found - truth.attrs["lvef_percent"]) < 2.5


@pytest.mark.real
def test_the_reconstruction_program_of_ismrmrd_tools_reads_the_file(tmp_path):
    program = shutil.which("ismrmrd_recon_cartesian_2d")
    if program is None:
        assert os.environ.get("CI") != "true", "ismrmrd-tools is not installed"
        pytest.skip("ismrmrd-tools is not installed")
    simulate_scan(tmp_path / "r.h5", pattern="uniform", acceleration=1, vendor="GE", **SMALL)
    done = subprocess.run(
        [program, tmp_path / "r.h5"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Encoding Matrix Size        : [128, 64, 1]" in done.stdout
    assert "Number of Channels          : 3" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"matrix": 8}, "matrix is 8"),
        ({"slices": 0}, "slices is 0"),
        ({"phases": 0}, "phases is 0"),
        ({"coils": 0}, "coils is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"field": 7.0}, "7.0 T"),
        ({"vendor": "Acme"}, "Acme"),
        ({"modality": "PET"}, "PET"),
        ({"pattern": "spiral"}, "spiral"),
        ({"acceleration": 0.0}, "acceleration is 0"),
        ({"pattern": "uniform", "acceleration": 2.5}, "integer"),
    ],
)
def test_a_scan_that_cannot_be_is_refused_and_leaves_no_file(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        simulate_scan(tmp_path / "r.h5", **(SMALL | options))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        simulate_scan(tmp_path / "nowhere" / "r.h5", **SMALL)
