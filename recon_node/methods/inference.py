"""From one slice's k-space to its images through a network: the array work of the runner.

The node lays k-space out as `(ky, kx)`, networks as `(row, column)` with rows along the readout; this module
turns one into the other. Samples visit the device a chunk of frames at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.core.fft import centred_fft
from recon_node.core.types import CoilMaps, KSpace
from recon_node.methods.series import noise_unit
from recon_node.model.cardiomm import CardioMM
from recon_node.model.consistency import Physics, combine
from recon_node.model.singleframe import PUBLISHED_ACS, PublishedCardioMM
from recon_node.solvers.kt import kt_images, kt_parts
from recon_node.solvers.operator import SenseOperator


def clip_images(
    net: CardioMM,
    kspace: KSpace,
    maps: CoilMaps | None,
    texts: tuple[Tensor, Tensor],
    *,
    periodic: bool,
    chunk: int | None,
    seen: NDArray[np.complex64] | None = None,
) -> NDArray[np.complex64]:
    """All frames together.

    A network makes the image of the first map set. Where there are others, k-t sparse SENSE with all of them
    takes off what belongs to the others, and their images are kept as they are.

    Parameters
    ----------
    net : CardioMM
        On the device to compute on.
    kspace : KSpace
        One slice.
    maps : CoilMaps or None
        None lets the sensitivity network make one set from the time average.
    texts : tuple of Tensor
        `(1, text_size)` each, metadata and undersampling after the heads.
    periodic : bool
        Whether the last frame's neighbour is the first one.
    chunk : int or None
        Frames that go through a UNet together; None for all.
    seen : ndarray, optional
        Where the first estimate looks for air, see `recon_node.solvers.kt.kt_parts`.

    Returns
    -------
    ndarray
        `(phase, map, y, x)` complex64.
    """
    device, (meta, us) = texts[0].device, texts
    noise = 1.0 if net.config.start == "zero-filled" else noise_unit(kspace)
    parts = None
    if maps is not None and len(maps.data) > 1:
        unit = noise_unit(kspace)
        parts = kt_parts(kspace.data, kspace.mask, maps.data, net.config.kt, device, unit=unit, seen=seen)
        kspace = _without(kspace, parts[:, 1:], maps.data[1:])
    mask = _to_rows(kspace.mask, device)[None]
    if maps is None:
        acs, average = kspace.sampling.acs, _time_average(kspace, device)[None]
        used = net.learned_maps(average, mask.any(dim=1), meta, us, acs=acs, acs_rule="columns")
    else:
        used = _to_rows(maps.data[0], device)[None]
    physics, matched = Physics(used, mask), None
    if maps is None:
        chunks = _chunks(kspace, chunk, device)
        measured = torch.cat([physics.adjoint(some[None]) for some, _ in chunks], dim=1)
    else:
        matched = SenseOperator(maps.data[:1], kspace.mask, device).matched(kspace.data)
        measured = torch.fft.fftshift(matched[:, 0], dim=(-2, -1))[None]
    first = None
    if net.config.start != "zero-filled" and parts is not None:
        first = _to_rows(parts[:, 0], device)[None]
    elif net.config.start != "zero-filled":
        given = (kspace.data, kspace.mask, used.mT.cpu().numpy(), net.config.kt, device)
        made = kt_images(*given, unit=noise, seen=seen, matched=matched)
        first = _to_rows(made, device)[None]
    images = net.unroll(physics, measured, meta, us, first=first, noise=noise, periodic=periodic, chunk=chunk)
    images = net.last_consistency(physics, images, measured, meta, us, first=first, chunk=chunk)
    own = _from_rows(images[0])[:, None]
    return own if parts is None else np.concatenate([own, parts[:, 1:]], axis=1)


def frame_images(
    net: CardioMM,
    kspace: KSpace,
    maps: CoilMaps | None,
    texts: tuple[Tensor, Tensor],
    *,
    reference: CoilMaps | None,
    chunk: int | None,
) -> NDArray[np.complex64]:
    """Each frame on its own as the published network takes it, its magnitude as published.

    Parameters
    ----------
    net, kspace, texts, chunk
        As for `clip_images`.
    maps : CoilMaps or None
        The first set is used; None lets the sensitivity network make maps for each frame from its own
        calibration lines.
    reference : CoilMaps or None
        The published network ends in a magnitude. These maps give it the phase of its own coil images
        combined with them, so that k-space can be predicted from image and maps; without them the phase is
        that of the coil images' sum.

    Returns
    -------
    ndarray
        `(phase, y, x)` complex64.
    """
    device, (meta, us) = texts[0].device, texts
    network, width = PublishedCardioMM(net), _calibration_columns(kspace)
    given = None if maps is None else _to_rows(maps.data[0], device)
    known = None if reference is None else _to_rows(reference.data[0], device)
    images = []
    for samples, mask in _chunks(kspace, chunk, device):
        used = None if given is None else given.expand_as(samples)
        coils = network.coil_images(samples, mask, meta, us, acs=width, maps=used)
        combined = coils.sum(dim=1) if known is None else combine(coils, known)
        size = coils.abs().square().sum(dim=1).sqrt()
        images.append(_from_rows(torch.polar(size, combined.angle())))
    return np.concatenate(images)


def _without(kspace: KSpace, parts: NDArray[np.complex64], maps: NDArray[np.complex64]) -> KSpace:
    """K-space less what images `(phase, map, y, x)` give through their maps `(map, coil, y, x)`."""
    rest = np.empty_like(kspace.data)
    for i, images in enumerate(parts):
        seen = np.einsum("mcyx,myx->cyx", maps, images)
        rest[i] = (kspace.data[i] - centred_fft(seen)) * kspace.mask[i]
    return replace(kspace, data=rest)


def _calibration_columns(kspace: KSpace) -> int:
    """What a published network gets: its usual number of columns, or the fewer that were sampled.

    Its pipelines take columns of pseudo-radial data as well, whose calibration block is no column.
    """
    if kspace.sampling.pattern == "radial":
        return min(PUBLISHED_ACS, int(kspace.data.shape[-2]))
    return min(PUBLISHED_ACS, kspace.sampling.acs)


def _time_average(kspace: KSpace, device: torch.device) -> Tensor:
    """Mean over the phases that sampled each point, `(coil, row, column)`."""
    total = np.zeros(kspace.data.shape[1:], np.complex64)
    for samples, mask in zip(kspace.data, kspace.mask, strict=True):
        total += samples * mask
    count = np.maximum(kspace.mask.sum(axis=0), 1).astype(np.float32)
    return _to_rows(total / count, device)


def _chunks(kspace: KSpace, size: int | None, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Samples `(frame, coil, row, column)` and mask `(frame, row, column)` of a few frames at a time."""
    step = size or len(kspace.data)
    for start in range(0, len(kspace.data), step):
        frames = slice(start, start + step)
        samples = kspace.data[frames] * kspace.mask[frames, None]
        yield _to_rows(samples, device), _to_rows(kspace.mask[frames], device)


def _to_rows(array: NDArray[Any], device: torch.device) -> Tensor:
    """`(..., y, x)` of the node to `(..., row, column)` of a network: rows lie along the readout."""
    return torch.from_numpy(np.array(array.swapaxes(-1, -2), order="C")).to(device)


def _from_rows(images: Tensor) -> NDArray[np.complex64]:
    """`(frame, row, column)` of a network to `(frame, y, x)` of the node."""
    out: NDArray[np.complex64] = np.ascontiguousarray(images.cpu().numpy().swapaxes(-1, -2))
    return out
