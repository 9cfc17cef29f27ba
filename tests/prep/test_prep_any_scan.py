"""Scans of every make against the k-space they were made from: equal, or said why not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_scanner import Array, LateLines, Line, block, make_header, prepare, white

from recon_node.core.acquisition import AcquisitionFlag as Flag
from recon_node.core.errors import ReconNodeError
from recon_node.core.fft import centred_fft, centred_ifft
from recon_node.core.scan import Limit, ScanHeader
from recon_node.core.types import KSpace
from recon_node.prep.kinds import NOT_FOR_IMAGES

USER_FLAGS = [1 << bit for bit in range(56, 64)]
POSITIONS = [1 << bit for bit in range(18)]
"""First and last in slice, phase, ...: set at random, they may end slices early but never move a line."""


@dataclass
class Scan:
    """What a scanner sends, and what it measured."""

    header: ScanHeader
    lines: list[Line]
    truth: dict[tuple[int, int, int, int], Array]
    """By (slice, set, repetition, contrast): `(phase, coil, ky, kx)`."""
    sent: dict[tuple[int, int, int, int], Array]
    """The lines that were sent, `(phase, ky)` bool."""
    covered: Array
    """`(kx,)` bool: samples of the final grid that the readout measured."""


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    ny, nx = draw(st.integers(8, 20)), draw(st.integers(8, 16))
    coils, phases = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    full = draw(st.sampled_from([nx, 2 * nx, nx + 4, round(1.5 * nx)]))
    loops = [draw(st.integers(1, 2)) for _ in range(4)]
    averages = draw(st.integers(1, 2))
    first = draw(st.integers(0, ny // 2 - 3))
    limits: dict[str, Limit] = {
        "kspace_encoding_step_1": Limit(minimum=0, maximum=ny - 1 - first, center=ny // 2 - first),
        "average": Limit(minimum=0, maximum=averages - 1, center=0),
    }
    offset = draw(st.sampled_from([0, 0, 5]))
    limits["phase"] = Limit(minimum=offset, maximum=offset + phases - 1, center=0)
    for name, size in zip(("slice", "set", "repetition", "contrast"), loops, strict=True):
        if draw(st.booleans()):
            limits[name] = Limit(minimum=0, maximum=size - 1, center=0)
    header = make_header((ny, nx), full_x=full, limits={}, vendor=draw(st.sampled_from(["GE", "SIEMENS"])))
    header = dataclasses.replace(header, limits=limits)
    pre, post = (draw(st.sampled_from([0, 0, 3])) for _ in range(2))
    cut = draw(st.sampled_from([0, 0, full // 4])) if full > nx else 0
    reverse = draw(st.booleans())
    scan = Scan(header, [], {}, {}, _covered(full, nx, cut))
    for index in np.ndindex(*loops):
        wide = white(rng, (phases, coils, ny, full))
        wide[..., :cut] = 0
        sampled = rng.random((phases, ny)) < draw(st.sampled_from([0.5, 1.0]))
        sampled[:, :first] = False
        sampled[:, ny // 2] = True
        scan.truth[index] = _cropped(wide, nx)
        scan.sent[index] = sampled
        flipped = np.full((phases, ny), reverse and rng.random() < 0.5)
        for average, phase, ky in zip(
            *np.nonzero(np.broadcast_to(sampled, (averages, phases, ny))), strict=True
        ):
            samples = wide[phase, :, ky, cut:]
            padded = np.concatenate([white(rng, (coils, pre)), samples, white(rng, (coils, post))], axis=1)
            centre = full // 2 - cut + pre
            turned = bool(flipped[phase, ky])
            fields = {"discard_pre": pre, "discard_post": post, "center_sample": centre}
            if turned:
                padded = padded[:, ::-1]
                fields = {"discard_pre": post, "discard_post": pre}
                fields["center_sample"] = padded.shape[1] - 1 - centre
            counters = {"phase": phase + offset, "average": average, "segment": int(rng.integers(0, 3))}
            counters |= dict(zip(("slice", "set", "repetition", "contrast"), index, strict=True))
            flags = int(rng.choice(USER_FLAGS)) | (int(Flag.IS_REVERSE) if turned else 0)
            flags |= int(Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING) if rng.random() < 0.2 else 0
            scan.lines.append(Line(padded, ky=int(ky) - first, flags=flags, fields=fields, counters=counters))
    _order(draw, rng, scan, coils)
    return scan


def _cropped(wide: Array, nx: int) -> Array:
    image = centred_ifft(wide, (-1,))
    first = wide.shape[-1] // 2 - nx // 2
    return np.asarray(centred_fft(image[..., first : first + nx], (-1,)))


def _covered(full: int, nx: int, cut: int) -> Array:
    nearest = np.rint((np.arange(nx) - nx // 2) * (full / nx)).astype(int) + full // 2
    return np.asarray(np.clip(nearest, 0, full - 1) >= cut)


def _order(draw: st.DrawFn, rng: np.random.Generator, scan: Scan, coils: int) -> None:
    """Shuffle, and put acquisitions that make no image in between."""
    if draw(st.booleans()):
        rng.shuffle(scan.lines)  # type: ignore[arg-type]
    for flag in draw(st.lists(st.sampled_from(list(NOT_FOR_IMAGES)), max_size=3)):
        junk = Line(np.full(scan.lines[0].samples.shape, 1e6), ky=0, flags=int(flag))
        scan.lines.insert(int(rng.integers(0, len(scan.lines) + 1)), junk)


def matches(kspace: KSpace, scan: Scan) -> None:
    index = (kspace.index.slice, kspace.index.set, kspace.index.repetition, kspace.index.contrast)
    sent, truth = scan.sent[index], scan.truth[index]
    phases = np.flatnonzero(sent.any(axis=1))
    assert kspace.data.shape == (len(phases), *truth.shape[1:])
    mask = sent[phases][:, :, None] & scan.covered
    np.testing.assert_array_equal(kspace.mask, mask)
    np.testing.assert_allclose(kspace.data, np.where(mask[:, None], truth[phases], 0), atol=1e-5, rtol=1e-4)


@settings(deadline=None, max_examples=40)
@given(scan=scans(), step=st.integers(1, 60), streaming=st.booleans())
def test_whatever_the_scanner_did_every_line_ends_where_it_belongs(
    scan: Scan, step: int, streaming: bool
) -> None:
    blocks = [block(scan.lines[at : at + step]) for at in range(0, len(scan.lines), step)]
    try:
        found = prepare(scan.header, blocks, orientation="as-is", streaming=streaming)
    except LateLines:
        assert streaming
        return
    assert len(found) == len(scan.truth)
    for kspace in found:
        matches(kspace, scan)


numbers = st.one_of(st.integers(0, 40), st.just(16))


@st.composite
def headers(draw: st.DrawFn) -> ScanHeader:
    """Headers that may contradict themselves and the lines."""

    def limit() -> Limit:
        low, high = sorted([draw(numbers), draw(numbers)])
        return Limit(minimum=low, maximum=high, center=draw(numbers))

    names = draw(
        st.lists(st.sampled_from(["kspace_encoding_step_1", "phase", "slice", "average", "segment"]))
    )
    lengths = st.floats(1.0, 600.0)
    sizes = st.sampled_from([1, 7, 8, 16, 24, 32])
    return ScanHeader(
        encoded_matrix=(draw(sizes), draw(sizes), draw(st.sampled_from([1, 1, 2]))),
        recon_matrix=(draw(sizes), draw(sizes), 1),
        encoded_fov_mm=(draw(lengths), draw(lengths), 8.0),
        recon_fov_mm=(draw(lengths), draw(lengths), 8.0),
        limits={name: limit() for name in names},
        acceleration=draw(st.sampled_from([None, (2.0, 1.0), (0.5, 0.5), (1e9, 1e9)])),
        calibration_mode=draw(st.sampled_from([None, "embedded", "separate", "interleaved", "nonsense"])),
        noise_bandwidth_ratio=draw(st.sampled_from([None, 0.79, 1e-9])),
        user=draw(st.sampled_from([{}, {"EmbeddedRefLinesE1": 24}, {"EmbeddedRefLinesE1": "many"}])),
    )


@settings(deadline=None, max_examples=120)
@given(header=headers(), data=st.data())
def test_any_header_gives_kspace_of_its_matrix_or_one_clear_error(
    header: ScanHeader, data: st.DataObject
) -> None:
    rng = np.random.default_rng(0)
    samples = data.draw(st.sampled_from([1, 8, 16, 32]))
    lines: list[Any] = []
    for ky in range(data.draw(st.integers(1, 32))):
        flags = data.draw(
            st.sampled_from([0, 0, 0, *NOT_FOR_IMAGES, Flag.IS_PARALLEL_CALIBRATION, *POSITIONS])
        )
        counters = {"phase": data.draw(st.integers(0, 3)), "slice": data.draw(st.integers(0, 1))}
        fields = {"center_sample": data.draw(st.sampled_from([0, samples // 2, samples]))}
        lines.append(
            Line(white(rng, (2, samples)), ky=ky, flags=int(flags), fields=fields, counters=counters)
        )
    try:
        found = prepare(header, [block(lines)], noise="auto")
    except ReconNodeError:
        return
    for kspace in found:
        assert np.isfinite(kspace.data.view(np.float32)).all()
        assert kspace.data.shape[2] == header.encoded_matrix[1]
        assert not kspace.data[~np.broadcast_to(kspace.mask[:, None], kspace.data.shape)].any()
        assert kspace.lines_found <= len(lines)
