import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from recon_node.core.errors import ConfigError, DataError, DeviceError, ModelError, WeightsError
from recon_node.core.fft import centred_fft
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import CoilMaps, KSpace, Sampling, TextEmbedding
from recon_node.methods.cardiomm import CardioMMReconstructor, is_periodic
from recon_node.methods.kt import KtSparse
from recon_node.methods.l1_wavelet import L1Wavelet
from recon_node.methods.sense import Sense
from recon_node.model import CardioMM, CardioMMConfig, LoadedWeights, UNetConfig
from recon_node.model.motion import find_motion
from recon_node.model.singleframe import PublishedCardioMM
from recon_node.model.unet import PromptedUNet
from recon_node.solvers.kt import KtConfig

TINY = UNetConfig(
    stem=4,
    levels=(6, 8, 8),
    prompts=(2, 3, 4),
    bank_sizes=(8, 4, 2),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    bottleneck_blocks=1,
)
CONFIG = CardioMMConfig(
    cascades=2,
    unet=TINY,
    frames=3,
    temporal_mean=True,
    start="kt",
    residual=True,
    text_features=12,
    text_size=6,
)
PUBLISHED = dataclasses.replace(
    CardioMMConfig.published(), cascades=2, unet=TINY, sensitivity=TINY, text_features=12, text_size=6
)
SAMPLING = Sampling(pattern="random", acceleration=2.0, effective_acceleration=2.0, acs=6)
FOV = (200.0, 200.0, 8.0)
TEXT = TextEmbedding(
    metadata=np.linspace(-1, 1, 12, dtype=np.float32),
    undersampling=np.linspace(1, 0, 12, dtype=np.float32),
    encoder="minilm",
    encoder_sha256="ab",
)


def loaded(config=CONFIG):
    torch.manual_seed(0)
    net = CardioMM(config).eval()
    for name, p in net.named_parameters():
        if name.endswith("head.weight"):  # a new residual network's is zero
            torch.nn.init.kaiming_uniform_(p.detach(), a=5**0.5)
    return LoadedWeights(
        net=net,
        config=config,
        name="tiny",
        sha256="f00",
        encoder="minilm",
        encoder_sha256="ab",
        card={},
    )


def scan(*, phases=5, coils=3, shape=(22, 19), seed=0, **changes):
    rng = np.random.default_rng(seed)
    mask = np.broadcast_to(rng.random((phases, shape[0], 1)) < 0.5, (phases, *shape)).copy()
    mask[:, shape[0] // 2 - 3 : shape[0] // 2 + 3] = True
    data = rng.standard_normal((phases, coils, *shape)) + 1j * rng.standard_normal((phases, coils, *shape))
    values = {
        "data": (data * mask[:, None]).astype(np.complex64),
        "mask": mask,
        "header": ScanHeader(
            encoded_matrix=(*shape[::-1], 1),
            encoded_fov_mm=FOV,
            recon_matrix=(*shape[::-1], 1),
            recon_fov_mm=FOV,
        ),
        "index": SliceIndex(slice=2),
        "geometry": SliceGeometry(
            position_mm=(0.0, 0.0, 0.0),
            read_dir=(1.0, 0.0, 0.0),
            phase_dir=(0.0, 1.0, 0.0),
            slice_dir=(0.0, 0.0, 1.0),
            fov_mm=FOV,
        ),
        "sampling": SAMPLING,
        "trigger_times_ms": tuple(100.0 * i for i in range(phases)),
        "rr_interval_ms": 100.0 * phases,
        "whitened": True,
    }
    return KSpace(**(values | changes))


def maps(*, coils=3, shape=(22, 19), seed=1):
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((1, coils, *shape)) + 1j * rng.standard_normal((1, coils, *shape))
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    return CoilMaps(data=data.astype(np.complex64), support=np.ones(shape, bool))


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_the_reconstruction_is_the_networks_with_rows_along_the_readout():
    weights, kspace, coils = loaded(), scan(), maps()
    images = CardioMMReconstructor(weights, device="cpu").reconstruct(kspace, coils, TEXT)
    with torch.no_grad():
        direct = weights.net(
            torch.from_numpy(kspace.data.transpose(0, 1, 3, 2).copy())[None],
            torch.from_numpy(kspace.mask.transpose(0, 2, 1).copy())[None],
            torch.tensor(TEXT.metadata)[None],
            torch.tensor(TEXT.undersampling)[None],
            torch.from_numpy(coils.data[0].transpose(0, 2, 1).copy())[None],
        )
    assert images.data.shape == (5, 22, 19)
    assert distance(images.data, direct[0].numpy().transpose(0, 2, 1)) < 1e-5


def test_the_series_says_what_made_it():
    kspace = scan()
    images = CardioMMReconstructor(loaded(), device="cpu").reconstruct(kspace, maps(), TEXT)
    assert (images.made_by.method, images.made_by.weights) == ("cardiomm", "tiny")
    assert images.made_by.weights_sha256 == "f00"
    assert images.made_by.settings == {
        "variant": "CardioMM",
        "precision": "float32",
        "maps": "espirit",
        "periodic": True,
    }
    assert images.index == kspace.index
    assert images.trigger_times_ms == kspace.trigger_times_ms


@pytest.mark.parametrize("phases", [1, 2, 7])
def test_any_number_of_phases_and_any_chunk_do(phases):
    kspace = scan(phases=phases)
    whole = CardioMMReconstructor(loaded(), device="cpu", chunk=100).reconstruct(kspace, maps(), TEXT)
    single = CardioMMReconstructor(loaded(), device="cpu", chunk=1).reconstruct(kspace, maps(), TEXT)
    assert whole.data.shape[0] == phases
    assert distance(single.data, whole.data) < 1e-5


def test_samples_outside_the_mask_do_not_count():
    kspace = scan()
    noise = np.where(kspace.mask[:, None], 0, 7 + 7j).astype(np.complex64)
    dirty = dataclasses.replace(kspace, data=kspace.data + noise)
    runner = CardioMMReconstructor(loaded(), device="cpu")
    clean = runner.reconstruct(kspace, maps(), TEXT).data
    # the time average is formed from the same samples
    assert distance(runner.reconstruct(dirty, maps(), TEXT).data, clean) < 1e-5


def test_both_texts_are_used():
    runner = CardioMMReconstructor(loaded(), device="cpu")
    for phase in runner.loaded.net.phases:
        for adapter in phase.model.unet.adapters:
            torch.nn.init.ones_(adapter.gamma)
    images = runner.reconstruct(scan(), maps(), TEXT).data
    for name in ("metadata", "undersampling"):
        other = dataclasses.replace(TEXT, **{name: -getattr(TEXT, name)})
        assert distance(runner.reconstruct(scan(), maps(), other).data, images) > 1e-6


def test_each_prompt_passes_the_heads_once(monkeypatch):
    weights = loaded()
    calls = []
    weights.net.metadata_head.register_forward_hook(lambda *args: calls.append(1))
    runner = CardioMMReconstructor(weights, device="cpu")
    for text in (TEXT, dataclasses.replace(TEXT), dataclasses.replace(TEXT, metadata=TEXT.metadata + 1)):
        runner.reconstruct(scan(phases=1), maps(), text)
    assert len(calls) == 2


def test_old_prompts_leave_the_cache():
    runner = CardioMMReconstructor(loaded(), device="cpu")
    for shift in range(70):
        runner._embedded(dataclasses.replace(TEXT, metadata=TEXT.metadata + np.float32(shift)))
    assert len(runner._texts) == 64


def test_a_text_blind_network_needs_no_prompts():
    config = dataclasses.replace(CONFIG, metadata_text=False, undersampling_text=False)
    runner = CardioMMReconstructor(loaded(config), device="cpu")
    images = runner.reconstruct(scan(), maps(), None)
    assert images.made_by.settings["variant"] == "CardioSM"
    assert np.array_equal(runner.reconstruct(scan(), maps(), TEXT).data, images.data)


def test_learned_maps_stand_in_for_given_ones():
    config = dataclasses.replace(CONFIG, sensitivity=TINY)
    runner = CardioMMReconstructor(loaded(config), device="cpu")
    images = runner.reconstruct(scan(), None, TEXT)
    assert images.made_by.settings["maps"] == "learned"
    assert np.isfinite(images.data).all()
    assert np.array_equal(runner.reconstruct(scan(), maps(), TEXT).data, images.data)
    with pytest.raises(ModelError, match="ESPIRiT"):
        CardioMMReconstructor(loaded(), device="cpu", coil_maps="learned")


def published(kspace, given=None, acs=6):
    """The module that `import_published` gives, on every frame."""
    count = len(kspace.data)
    with torch.no_grad():
        images = PublishedCardioMM(loaded(PUBLISHED).net)(
            torch.from_numpy(kspace.data.transpose(0, 1, 3, 2).copy()),
            torch.from_numpy(kspace.mask.transpose(0, 2, 1).copy()),
            torch.tensor(TEXT.metadata).expand(count, -1),
            torch.tensor(TEXT.undersampling).expand(count, -1),
            acs=acs,
            maps=None if given is None else torch.from_numpy(given).expand(count, -1, -1, -1),
        )
    return images.numpy().transpose(0, 2, 1)


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_a_published_network_gives_the_node_the_magnitudes_of_its_own_pipelines(chunk):
    kspace = scan()
    runner = CardioMMReconstructor(loaded(PUBLISHED), device="cpu", chunk=chunk)
    images = runner.reconstruct(kspace, maps(), TEXT)
    assert images.made_by.settings["maps"] == "learned"
    assert distance(np.abs(images.data), published(kspace)) < 2e-6
    assert distance(np.abs(runner.reconstruct(kspace, None, TEXT).data), published(kspace)) < 2e-6


def test_a_published_network_takes_espirit_maps_where_it_is_told_to():
    kspace, coils = scan(), maps()
    runner = CardioMMReconstructor(loaded(PUBLISHED), device="cpu", coil_maps="espirit")
    images = runner.reconstruct(kspace, coils, TEXT)
    assert images.made_by.settings["maps"] == "espirit"
    wanted = published(kspace, given=coils.data[0].transpose(0, 2, 1).copy())
    assert distance(np.abs(images.data), wanted) < 2e-6
    with pytest.raises(DataError, match="ESPIRiT"):
        runner.reconstruct(kspace, None, TEXT)


def test_a_published_network_takes_its_usual_twenty_columns_of_more():
    kspace = scan(shape=(40, 19), sampling=SAMPLING)
    mask = kspace.mask.copy()
    mask[:, 6:34] = True
    rng = np.random.default_rng(5)
    data = (rng.standard_normal(kspace.data.shape) * mask[:, None]).astype(np.complex64)
    kspace = dataclasses.replace(kspace, data=data, mask=mask, sampling=dataclasses.replace(SAMPLING, acs=28))
    images = CardioMMReconstructor(loaded(PUBLISHED), device="cpu").reconstruct(kspace, None, TEXT)
    assert distance(np.abs(images.data), published(kspace, acs=20)) < 2e-6


def test_a_slice_without_calibration_lines_of_its_own_gets_the_maps_given():
    kspace = scan(sampling=dataclasses.replace(SAMPLING, acs=0))
    images = CardioMMReconstructor(loaded(PUBLISHED), device="cpu").reconstruct(kspace, maps(), TEXT)
    assert images.made_by.settings["maps"] == "espirit"


def test_the_phase_of_a_published_image_is_that_of_its_coil_images_combined():
    """With a network that leaves images alone, k-space is predicted exactly from image and maps."""
    kspace = scan(phases=2)
    coils = maps()
    truth = (np.random.default_rng(3).standard_normal((2, 22, 19)) + 1j).astype(np.complex64)
    full = dataclasses.replace(
        kspace,
        data=centred_fft(coils.data[0] * truth[:, None]).astype(np.complex64),
        mask=np.ones_like(kspace.mask),
    )
    weights = loaded(PUBLISHED)
    for phase in weights.net.phases:
        torch.nn.init.zeros_(phase.dc_weight)  # fully sampled data are then kept exactly
    runner = CardioMMReconstructor(weights, device="cpu", coil_maps="espirit")
    assert distance(runner.reconstruct(full, coils, TEXT).data, truth) < 1e-5


def test_bfloat16_is_used_where_it_changes_little():
    exact = CardioMMReconstructor(loaded(), device="cpu").reconstruct(scan(), maps(), TEXT)
    runner = CardioMMReconstructor(loaded(), device="cpu", precision="bfloat16")
    first, second = (runner.reconstruct(scan(), maps(), TEXT) for _ in range(2))
    assert np.array_equal(first.data, exact.data)
    assert second.made_by.settings["precision"] == "bfloat16"
    assert 0 < distance(second.data, exact.data) < 0.01


def test_bfloat16_is_dropped_where_it_changes_much(monkeypatch, caplog):
    monkeypatch.setattr("recon_node.methods.cardiomm.BFLOAT16_TOLERANCE", 1e-6)
    runner = CardioMMReconstructor(loaded(), device="cpu", precision="bfloat16")
    first, second = (runner.reconstruct(scan(), maps(), TEXT) for _ in range(2))
    assert "staying with float32" in caplog.text
    assert second.made_by.settings["precision"] == "float32"
    assert np.array_equal(first.data, second.data)


ALIGNED = dataclasses.replace(CONFIG, aligned=True, gate=True, consistency="proximal")


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("config", [CONFIG, ALIGNED], ids=["image", "correction"])
def test_auto_halves_only_what_is_made_for_it_where_that_is_quick(config, native, monkeypatch):
    monkeypatch.setattr("recon_node.methods.cardiomm.is_native", lambda device: native)
    exact = CardioMMReconstructor(loaded(config), device="cpu", precision="float32")
    runner = CardioMMReconstructor(loaded(config), device="cpu")
    wanted = exact.reconstruct(scan(), maps(), TEXT)
    found = [runner.reconstruct(scan(), maps(), TEXT) for _ in range(2)]
    halves = native and config is ALIGNED
    for images in found:
        assert images.made_by.settings["precision"] == ("bfloat16" if halves else "float32")
    assert np.array_equal(found[0].data, found[1].data)
    assert np.array_equal(found[0].data, wanted.data) == (not halves)


def test_halved_networks_of_aligned_frames_round_far_below_the_noise(monkeypatch):
    """In noise standard deviations, largest over the pixels; the noise of `scan` is 2 ** 0.5."""
    monkeypatch.setattr("recon_node.methods.cardiomm.is_native", lambda device: True)
    exact, quick = (
        CardioMMReconstructor(loaded(ALIGNED), device="cpu", precision=precision).reconstruct(
            scan(), maps(), TEXT
        )
        for precision in ("float32", "auto")
    )
    assert np.abs(quick.data - exact.data).max() < 0.05


def test_motion_is_found_in_single_precision_whatever_surrounds_it():
    images = torch.rand(4, 24, 24, dtype=torch.complex64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = find_motion(images, 3, periodic=True)
    assert torch.equal(inside, find_motion(images, 3, periodic=True))


def out_of_memory_above(limit, monkeypatch, error):
    real = CardioMM.unroll
    tried = []

    def unroll(self, *args, chunk=None, **options):
        tried.append(chunk)
        if chunk is None or chunk > limit:
            raise error
        return real(self, *args, chunk=chunk, **options)

    monkeypatch.setattr(CardioMM, "unroll", unroll)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_chunk_and_keeps_it_small(monkeypatch, error):
    wanted = CardioMMReconstructor(loaded(), device="cpu").reconstruct(scan(), maps(), TEXT)
    tried = out_of_memory_above(2, monkeypatch, error)
    runner = CardioMMReconstructor(loaded(), device="cpu", chunk=9)
    images = runner.reconstruct(scan(), maps(), TEXT)
    runner.reconstruct(scan(), maps(), TEXT)
    assert tried == [9, 4, 2, 2]
    assert distance(images.data, wanted.data) < 1e-5


def test_a_device_too_small_for_one_frame_is_a_retryable_error(monkeypatch):
    out_of_memory_above(0, monkeypatch, torch.OutOfMemoryError("full"))
    with pytest.raises(DeviceError, match="one frame at a time") as caught:
        CardioMMReconstructor(loaded(), device="cpu", chunk=3).reconstruct(scan(), maps(), TEXT)
    assert caught.value.retryable


def test_a_bug_on_the_cpu_is_not_dressed_up_as_a_full_device(monkeypatch):
    out_of_memory_above(0, monkeypatch, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        CardioMMReconstructor(loaded(), device="cpu").reconstruct(scan(), maps(), TEXT)


class Vanishing:
    """A network's device: takes the weights and computes, but no result ever comes back from it."""

    device = torch.device("meta")

    def __init__(self, monkeypatch):
        monkeypatch.setattr("recon_node.methods.cardiomm.pick_device", lambda device: self.device)
        monkeypatch.setattr("recon_node.solvers.device.pick_device", self.pick)

    def pick(self, device):
        return self.device if device == "auto" else torch.device(device)


def test_a_vanished_gpu_is_a_retryable_device_error(monkeypatch):
    Vanishing(monkeypatch)
    runner = CardioMMReconstructor(loaded(), device="cuda")
    with pytest.raises(DeviceError, match="meta failed: ") as caught:
        runner.reconstruct(scan(), maps(), TEXT)
    assert caught.value.retryable
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [CONFIG, PUBLISHED], ids=["ours", "published"])
def test_where_the_device_was_left_open_the_cpu_takes_over_from_a_vanished_gpu(monkeypatch, caplog, config):
    wanted = CardioMMReconstructor(loaded(config), device="cpu").reconstruct(scan(), maps(), TEXT)
    Vanishing(monkeypatch)
    runner = CardioMMReconstructor(loaded(config), device="auto")
    for _ in range(2):
        assert np.array_equal(runner.reconstruct(scan(), maps(), TEXT).data, wanted.data)
    assert caplog.text.count("going on with the CPU") == 1
    assert runner.device.type == "cpu"


def _kt(device):
    return KtSparse(KtConfig(iterations=2), device=device)


@pytest.mark.parametrize("method", [partial(Sense, iterations=2), partial(L1Wavelet, iterations=2), _kt])
def test_classical_methods_go_on_with_the_cpu_as_well(monkeypatch, caplog, method):
    wanted = method(device="cpu").reconstruct(scan(), maps())
    Vanishing(monkeypatch)
    images = method(device="auto").reconstruct(scan(), maps())
    assert np.array_equal(images.data, wanted.data)
    assert "going on with the CPU" in caplog.text
    with pytest.raises(DeviceError, match="meta failed"):
        method(device="meta").reconstruct(scan(), maps())


def test_a_device_of_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="'gpu7', expected auto"):
        CardioMMReconstructor(loaded(), device="gpu7")


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, on compiling
def test_without_a_compiler_the_network_runs_as_it_is(monkeypatch, caplog):
    wanted = CardioMMReconstructor(loaded(), device="cpu").reconstruct(scan(), maps(), TEXT)

    def uncompilable(self, *args, **options):
        if self._compiled_call_impl is not None:
            raise torch._dynamo.exc.BackendCompilerFailed(print, RuntimeError("no compiler"), None)
        return real(self, *args, **options)

    real = PromptedUNet.__call__
    monkeypatch.setattr(PromptedUNet, "__call__", uncompilable)
    runner = CardioMMReconstructor(loaded(), device="cpu", compile=True)
    assert np.array_equal(runner.reconstruct(scan(), maps(), TEXT).data, wanted.data)
    assert "compiling failed (BackendCompilerFailed)" in caplog.text


def spoiled(what):
    kspace = scan()
    data, mask = kspace.data.copy(), kspace.mask.copy()
    if what == "nan":
        data[1, 0, 11, 3] = np.nan
    elif what == "zero":
        data[:] = 0
    elif what == "zero phase":
        data[3] = 0
    elif what == "no line":
        mask[:] = False
    elif what == "no line in a phase":
        mask[2] = False
    return dataclasses.replace(kspace, data=data, mask=mask)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nan", "NaN or infinite"),
        ("zero", "all samples of the slice are zero"),
        ("zero phase", "zero in phases 3 of 5"),
        ("no line", "mask is empty"),
        ("no line in a phase", "no line was sampled in phases 2 of 5"),
    ],
)
def test_k_space_that_says_nothing_is_refused(what, words):
    with pytest.raises(DataError, match=words):
        CardioMMReconstructor(loaded(), device="cpu").reconstruct(spoiled(what), maps(), TEXT)


def test_many_empty_phases_are_counted_not_listed():
    kspace = scan(phases=12)
    data = kspace.data * (np.arange(12) == 3)[:, None, None, None]
    with pytest.raises(DataError, match=r"\.\.\. \(11 in all\)"):
        CardioMMReconstructor(loaded(), device="cpu").reconstruct(
            dataclasses.replace(kspace, data=data), maps(), TEXT
        )


def test_an_image_smaller_than_the_network_is_refused():
    with pytest.raises(DataError, match="at least 8 x 8"):
        CardioMMReconstructor(loaded(), device="cpu").reconstruct(
            scan(shape=(22, 6)), maps(shape=(22, 6)), TEXT
        )


def test_missing_parts_are_named():
    runner = CardioMMReconstructor(loaded(), device="cpu")
    with pytest.raises(DataError, match="ESPIRiT"):
        runner.reconstruct(scan(), None, TEXT)
    with pytest.raises(ModelError, match="need prompts"):
        runner.reconstruct(scan(), maps(), None)
    with pytest.raises(WeightsError, match="minilm"):
        runner.reconstruct(scan(), maps(), dataclasses.replace(TEXT, encoder="clip"))
    with pytest.raises(DataError, match="coil maps"):
        runner.reconstruct(scan(), maps(coils=4), TEXT)


@pytest.mark.parametrize(
    "options", [{"chunk": 0}, {"threads": 0}, {"precision": "float16"}, {"coil_maps": "walsh"}], ids=str
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        CardioMMReconstructor(loaded(), device="cpu", **options)


def test_threads_are_set_for_the_process():
    before = torch.get_num_threads()
    try:
        CardioMMReconstructor(loaded(), device="cpu", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_cuda_where_there_is_none_is_refused():
    with pytest.raises(DeviceError, match="no CUDA device"):
        CardioMMReconstructor(loaded(), device="cuda")


@pytest.mark.parametrize(
    ("times", "interval", "periodic"),
    [
        (None, None, False),
        ((0.0, 40.0), 80.0, False),
        ((0.0, 40.0, 80.0, 120.0), 160.0, True),
        ((0.0, 40.0, 80.0, 120.0), None, True),
        ((0.0, 40.0, 80.0, 120.0), 800.0, False),
        ((100.0, 100.0, 100.0, 100.0), 800.0, False),
        ((0.0, 40.0, 80.0, 700.0), 740.0, False),
    ],
)
def test_only_phases_that_go_once_round_are_periodic(times, interval, periodic):
    phases = 4 if times is None else len(times)
    assert is_periodic(scan(phases=phases, trigger_times_ms=times, rr_interval_ms=interval)) is periodic
