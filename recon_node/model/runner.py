"""CardioMM as a reconstructor of the node: one runner for CPU and CUDA, memory bounded by a chunk of frames.

A slice is processed whole, cascade by cascade; within a cascade, frames go through the UNet and through data
consistency in chunks, which changes nothing in the result. After an out-of-memory error the chunk is halved
and the slice starts again.

One thread per process is the policy under load. Several threads help only where waiting threads sleep: set
``OMP_WAIT_POLICY=passive`` in the environment before the process starts.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.core.errors import ConfigError, DataError, DeviceError, ModelError
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.model.cardiomm import CardioMM
from recon_node.model.consistency import Physics, centred_ifft, combine
from recon_node.model.series import check, pick_device, series
from recon_node.model.weights import LoadedWeights

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]

BFLOAT16_TOLERANCE = 0.01
"""Largest relative L2 difference between both precisions at which bfloat16 is used."""
CPU_CHUNK = 2
"""Frames per step on CPU, where more of them only cost memory."""
_TEXTS_KEPT = 64


class CardioMMReconstructor:
    """Runs a CardioMM network on the slices of a scan.

    Parameters
    ----------
    loaded : LoadedWeights
        The network; it is moved to the device.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    threads : int, optional
        CPU threads of the whole process; left as it is by default.
    chunk : int, optional
        Frames that are processed together, halved after an out-of-memory error; by default a few on CPU
        and all on CUDA.
    precision : {"float32", "bfloat16"}
        bfloat16 runs the convolutions in half the bits, once the first slice has shown that this changes its
        images by less than `BFLOAT16_TOLERANCE`; otherwise float32 stays in use. It is slow on CPUs without
        native support.
    compile : bool
        Compile the UNets (``torch.compile``): tens of seconds at the first slice of each shape.
    learned_maps : bool
        Use the sensitivity network's coil maps instead of those given (published weights).

    Raises
    ------
    DeviceError
        CUDA was asked for and is absent.
    ConfigError
        An option is out of range.
    ModelError
        Learned maps were asked for and the weights hold no sensitivity network.
    """

    name = "cardiomm"

    def __init__(
        self,
        loaded: LoadedWeights,
        *,
        device: str = "auto",
        threads: int | None = None,
        chunk: int | None = None,
        precision: Precision = "float32",
        compile: bool = False,  # noqa: A002 - the word torch users know
        learned_maps: bool = False,
    ) -> None:
        for option, value in (("threads", threads), ("chunk", chunk)):
            if value is not None and value < 1:
                raise ConfigError(f"{option} is {value}, expected at least 1")
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision is {precision!r}, expected float32 or bfloat16")
        if learned_maps and loaded.net.sensitivity is None:
            raise ModelError(f"weights {loaded.name} hold no sensitivity network: use ESPIRiT maps")
        if threads is not None:
            torch.set_num_threads(threads)
        self.loaded = loaded
        self.device = pick_device(device)
        self.chunk = chunk if chunk or self.device.type == "cuda" else CPU_CHUNK
        self.learned_maps = learned_maps
        self._half: bool | None = None if precision == "bfloat16" else False
        self._texts: dict[tuple[bytes, bytes], tuple[Tensor, Tensor]] = {}
        self._net = _placed(loaded.net, self.device)
        if compile:
            for phase in self._net.phases:
                phase.model.unet.compile()

    def reconstruct(self, kspace: KSpace, maps: CoilMaps | None, text: TextEmbedding | None) -> ImageSeries:
        """Images `(phase, y, x)` of one slice, in the units of the k-space.

        Parameters
        ----------
        kspace : KSpace
            All phases of the slice; they are reconstructed together.
        maps : CoilMaps
            The first map set is used. Not needed with learned maps.
        text : TextEmbedding
            Both prompts, made by the encoder that the weights were trained with. A network without text
            conditioning ignores it.

        Raises
        ------
        DataError
            K-space that is not finite or empty in some phase, no sampled line, an image smaller than the
            network's depth needs, or no coil maps.
        WeightsError
            Prompts of another text encoder.
        ModelError
            No prompts for a network that needs them.
        DeviceError
            The device failed, or is full even frame by frame (retryable).
        """
        self._check(kspace, maps)
        periodic = is_periodic(kspace)

        def run(*, half: bool) -> NDArray[np.complex64]:
            return self._adapting(lambda chunk: self._run(kspace, maps, text, periodic, chunk, half=half))

        images = run(half=bool(self._half))
        if self._half is None:
            self._half = _agree(run(half=True), images)
        settings = {
            "variant": self.loaded.config.variant,
            "precision": "bfloat16" if self._half else "float32",
            "maps": "learned" if self.learned_maps or maps is None else maps.method,
            "periodic": periodic,
        }
        made = series(kspace, images, self.name, settings)
        made_by = dataclasses.replace(
            made.made_by, weights=self.loaded.name, weights_sha256=self.loaded.sha256
        )
        return dataclasses.replace(made, made_by=made_by)

    def _check(self, kspace: KSpace, maps: CoilMaps | None) -> None:
        check(kspace, maps)
        if maps is None and not self.learned_maps:
            raise DataError("CardioMM needs coil maps: calibrate with ESPIRiT")
        without = [i for i, mask in enumerate(kspace.mask) if not mask.any()]
        if without:
            raise DataError(f"no line was sampled in phases {_listed(without)} of {len(kspace.mask)}")
        empty = [i for i, samples in enumerate(kspace.data) if not samples.any()]
        if empty:
            raise DataError(f"all samples are zero in phases {_listed(empty)} of {len(kspace.data)}")

    def _embedded(self, text: TextEmbedding | None) -> tuple[Tensor, Tensor]:
        config = self.loaded.config
        if not (config.metadata_text or config.undersampling_text):
            zeros = torch.zeros(1, config.text_features, device=self.device)
            return self._net.embed(zeros, zeros)
        if text is None:
            raise ModelError(f"weights {self.loaded.name} need prompts: give their text embedding")
        self.loaded.check_text(text)
        key = (text.metadata.tobytes(), text.undersampling.tobytes())
        if key not in self._texts:
            if len(self._texts) >= _TEXTS_KEPT:
                self._texts.pop(next(iter(self._texts)))
            vectors = (torch.tensor(v, device=self.device)[None] for v in (text.metadata, text.undersampling))
            with torch.inference_mode():
                self._texts[key] = self._net.embed(*vectors)
        return self._texts[key]

    def _adapting(self, work: Callable[[int | None], NDArray[np.complex64]]) -> NDArray[np.complex64]:
        while True:
            try:
                return work(self.chunk)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    if self.device.type == "cpu":
                        raise
                    raise DeviceError(f"{self.device} failed: {str(error).splitlines()[0]}") from error
                self._shrink(error)

    def _shrink(self, error: Exception) -> None:
        if self.chunk == 1:
            raise DeviceError(
                f"{self.device} is out of memory even with one frame at a time: free memory, or use "
                "another device"
            ) from error
        self.chunk = 16 if self.chunk is None else self.chunk // 2
        log.warning("%s is out of memory: going on with %d frames at a time", self.device, self.chunk)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _run(
        self,
        kspace: KSpace,
        maps: CoilMaps | None,
        text: TextEmbedding | None,
        periodic: bool,
        chunk: int | None,
        *,
        half: bool,
    ) -> NDArray[np.complex64]:
        net, device = self._net, self.device
        meta, us = self._embedded(text)
        mask = torch.tensor(kspace.mask.transpose(0, 2, 1), device=device)[None]
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            average = _time_average(kspace).to(device)[None]
            if self.learned_maps or maps is None:
                union = mask.any(dim=1)
                sensitivities = net.learned_maps(
                    average, union, meta, us, acs=kspace.sampling.acs, acs_rule="columns"
                )
            else:
                sensitivities = torch.tensor(maps.data[0].transpose(0, 2, 1), device=device)[None]
            physics = Physics(sensitivities, mask)
            measured = _measured(physics, kspace, chunk, device)
            mean = combine(centred_ifft(average), sensitivities) if net.needs_mean else None
            images = net.unroll(physics, measured, meta, us, mean=mean, periodic=periodic, chunk=chunk)
            images = net.last_consistency(physics, images, measured, chunk=chunk)
        out: NDArray[np.complex64] = np.ascontiguousarray(images[0].cpu().numpy().transpose(0, 2, 1))
        return out


def is_periodic(kspace: KSpace) -> bool:
    """Whether the phases go once round the heart cycle, so that the last one's neighbour is the first.

    They do where trigger times rise evenly enough and cover at least four fifths of the R-R interval (all of
    it, where the interval is not known).
    """
    times = kspace.trigger_times_ms
    if times is None or len(times) < 3:
        return False
    steps = np.diff(times)
    if not (steps > 0).all() or steps.max() > 3 * np.median(steps):
        return False
    covered = times[-1] - times[0] + float(np.median(steps))
    return kspace.rr_interval_ms is None or covered >= 0.8 * kspace.rr_interval_ms


def _placed(net: CardioMM, device: torch.device) -> CardioMM:
    try:
        return net.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]
    except RuntimeError as error:
        raise DeviceError(f"{device} cannot hold the network: {str(error).splitlines()[0]}") from error


def _time_average(kspace: KSpace) -> Tensor:
    """Mean over the phases that sampled each point, `(coil, row, column)`."""
    total = np.zeros(kspace.data.shape[1:], np.complex64)
    for samples, mask in zip(kspace.data, kspace.mask, strict=True):
        total += samples * mask
    count = np.maximum(kspace.mask.sum(axis=0), 1).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray((total / count).transpose(0, 2, 1)))


def _measured(physics: Physics, kspace: KSpace, chunk: int | None, device: torch.device) -> Tensor:
    """``A^H y`` of all phases; the k-space itself visits the device a chunk at a time."""
    parts = []
    step = chunk or len(kspace.data)
    for start in range(0, len(kspace.data), step):
        samples = kspace.data[start : start + step] * kspace.mask[start : start + step, None]
        samples = np.ascontiguousarray(samples.transpose(0, 1, 3, 2))
        parts.append(physics.adjoint(torch.from_numpy(samples).to(device)[None]))
    return torch.cat(parts, dim=1)


def _agree(half: NDArray[np.complex64], full: NDArray[np.complex64]) -> bool:
    difference = float(np.linalg.norm(half - full) / np.linalg.norm(full))
    if difference <= BFLOAT16_TOLERANCE:
        return True
    log.warning("bfloat16 changes the first slice by %.2g of its norm: staying with float32", difference)
    return False


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def _listed(phases: list[int]) -> str:
    shown = ", ".join(map(str, phases[:8]))
    return shown if len(phases) <= 8 else f"{shown}, ... ({len(phases)} in all)"
