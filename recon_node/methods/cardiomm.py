"""CardioMM as a reconstructor of the node: one runner for CPU and CUDA, memory bounded by a chunk of frames.

A slice is processed whole, cascade by cascade; within a cascade, frames go through the UNet and through data
consistency in chunks, which changes nothing in the result. After an out-of-memory error the chunk is halved
and the slice starts again. A network of the published kind takes its frames one by one, as its own pipelines
do.

One thread per process is the policy under load. Several threads help only where waiting threads sleep: set
``OMP_WAIT_POLICY=passive`` in the environment before the process starts.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_node.core.choices import MapSource, Precision
from recon_node.core.errors import ConfigError, DataError, DeviceError, ModelError, WeightsError
from recon_node.core.types import CoilMaps, ImageSeries, KSpace, TextEmbedding
from recon_node.methods.inference import clip_images, frame_images
from recon_node.methods.record import LoadedMethod, MethodOptions, MethodRecord
from recon_node.methods.series import check, series
from recon_node.model.cardiomm import CardioMM
from recon_node.model.precision import changes_next_to_nothing, halved, is_native
from recon_node.model.singleframe import is_single_frame
from recon_node.model.weights import LoadedWeights, find_weights, load_weights
from recon_node.prompts import load_encoder
from recon_node.solvers.device import CPU, failure_of, out_of_memory, pick_device
from recon_node.trust import Limits, TrainedOn, load_limits

log = logging.getLogger(__name__)

BFLOAT16_TOLERANCE = 0.01
"""Largest relative L2 difference between both precisions at which bfloat16 is used."""
CPU_CHUNK = 2
"""Frames per step on CPU, where more of them only cost memory."""
_FIRST_CHUNK = 16
"""Frames per step after a device could not take all frames at once."""
_TEXTS_KEPT = 64
LIMITS_SUFFIX = ".limits.json"
"""Beside a weights file: its calibrated trust limits."""
_COVERED = {"modality": "modalities", "pattern": "patterns"}
"""Prompt slot to the key of the training data's settings that lists its words."""


class CardioMMReconstructor:
    """Runs a CardioMM network on the slices of a scan.

    Parameters
    ----------
    loaded : LoadedWeights
        The network; it is moved to the device.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. With ``auto`` a GPU that fails, or is too small for one
        frame, is left for the CPU for good.
    threads : int, optional
        CPU threads of the whole process, at most one a core; left as it is by default.
    chunk : int, optional
        Frames that are processed together, halved after an out-of-memory error; by default a few on CPU
        and all on CUDA.
    precision : {"auto", "float32", "bfloat16"}
        bfloat16 runs the UNets in half the bits, once the first slice has shown that this changes its images
        by less than `BFLOAT16_TOLERANCE`; otherwise float32 stays in use. It is slow on CPUs without native
        support. ``auto`` takes it, from the first slice on, where the device has that support and the network
        is made so that the rounding stays far below the noise (`recon_node.model.precision`).
    compile : bool
        Compile the UNets (``torch.compile``): tens of seconds at the first slice of each shape. Needs a C++
        compiler; without one the first slice says so in the log and the network runs as it is.
    coil_maps : {"auto", "espirit", "learned"}
        Where coil maps come from: those given (ESPIRiT), or the weights' sensitivity network. ``auto`` is
        what the weights were trained with: learned where they hold such a network. Slices without
        calibration lines among their own are reconstructed with the maps given.

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
        precision: Precision = "auto",
        compile: bool = False,  # noqa: A002 - the word torch users know
        coil_maps: MapSource = "auto",
    ) -> None:
        for option, value in (("threads", threads), ("chunk", chunk)):
            if value is not None and value < 1:
                raise ConfigError(f"{option} is {value}, expected at least 1")
        for choice, options in ((precision, Precision), (coil_maps, MapSource)):
            if choice not in get_args(options):
                raise ConfigError(f"found {choice!r}, expected {' or '.join(get_args(options))}")
        able = loaded.net.sensitivity is not None
        if coil_maps == "learned" and not able:
            raise ModelError(f"weights {loaded.name} hold no sensitivity network: use ESPIRiT maps")
        if threads is not None:
            torch.set_num_threads(min(threads, _cores()))
        self.loaded = loaded
        self.learned_maps = able and coil_maps != "espirit"
        self._chunk, self._precision, self._compile = chunk, precision, compile
        self.seen: NDArray[np.complex64] | None = None
        chosen = pick_device(device)
        self._spare = copy.deepcopy(loaded.net) if device == "auto" and chosen.type != "cpu" else None
        self._place(loaded.net, chosen)

    @property
    def narrow(self) -> bool:
        """Not where the network makes coil maps, of all columns, or each new shape is compiled."""
        return not (self.learned_maps or self._compile)

    def _place(self, net: CardioMM, device: torch.device) -> None:
        self.device = device
        self.chunk = self._chunk if self._chunk or device.type != "cpu" else CPU_CHUNK
        self._texts: dict[tuple[bytes, bytes], tuple[Tensor, Tensor]] = {}
        self._net = self._fast = _placed(net, device)
        self._half: bool | None = None if self._precision == "bfloat16" else False
        if self._precision == "auto":
            self._half = changes_next_to_nothing(net.config) and is_native(device)
        if self._half is not False:
            self._fast = halved(self._net)
        if self._compile:
            for one in [self._net] if self._fast is self._net else [self._net, self._fast]:
                for phase in one.phases:
                    phase.model.unet.compile()

    def reconstruct(self, kspace: KSpace, maps: CoilMaps | None, text: TextEmbedding | None) -> ImageSeries:
        """Images `(phase, y, x)` of one slice, in the units of the k-space.

        Parameters
        ----------
        kspace : KSpace
            All phases of the slice; they are reconstructed together.
        maps : CoilMaps
            The network makes the image of the first map set, see `clip_images`. Not needed with learned maps.
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
        while True:
            try:
                return self._reconstructed(kspace, maps, text)
            except DeviceError as error:
                if self._spare is None:
                    raise
                log.warning("%s; going on with the CPU", error)
                net, self._spare = self._spare, None
                self._place(net, CPU)
            except RuntimeError as error:
                if not (self._compile and _of_the_compiler(error)):
                    raise
                log.warning("compiling failed (%s): the network runs as it is", type(error).__name__)
                self._compile = False
                self._place(copy.deepcopy(self._net), self.device)

    def like(self, images: ImageSeries) -> Self:
        """The same for parts of a slice, whose images tell the first estimate where air is."""
        one = copy.copy(self)
        one.seen = images.data
        return one

    def _reconstructed(
        self, kspace: KSpace, maps: CoilMaps | None, text: TextEmbedding | None
    ) -> ImageSeries:
        periodic = is_periodic(kspace)
        learned = self.learned_maps and (maps is None or kspace.sampling.acs > 0)
        given = None if learned else maps

        def work(net: CardioMM, chunk: int | None) -> NDArray[np.complex64]:
            texts = self._embedded(text)
            if is_single_frame(net.config):
                return frame_images(net, kspace, given, texts, reference=maps, chunk=chunk)
            return clip_images(net, kspace, given, texts, periodic=periodic, chunk=chunk, seen=self.seen)

        images = self._adapting(work, self._fast if self._half else self._net)
        if self._half is None:
            self._half = _agree(self._adapting(work, self._fast), images)
        settings = {
            "variant": self.loaded.config.variant,
            "precision": "bfloat16" if self._half else "float32",
            "maps": "learned" if given is None else given.method,
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
            self._texts[key] = self._net.embed(*vectors)
        return self._texts[key]

    def _adapting(
        self, work: Callable[[CardioMM, int | None], NDArray[np.complex64]], net: CardioMM
    ) -> NDArray[np.complex64]:
        while True:
            try:
                with torch.inference_mode():
                    return work(net, self.chunk)
            except (RuntimeError, MemoryError) as error:
                failure = None if _of_the_compiler(error) else failure_of(error, self.device)
                if failure is None:
                    raise
                if not out_of_memory(error):
                    raise failure from error
                full = error.with_traceback(None)  # its frames hold the tensors that fill the device
            self._shrink(full)

    def _shrink(self, error: Exception) -> None:
        if self.chunk == 1:
            raise DeviceError(
                f"{self.device} is out of memory even with one frame at a time: free memory, or use "
                "another device"
            ) from error
        self.chunk = _FIRST_CHUNK if self.chunk is None else self.chunk // 2
        log.warning("%s is out of memory: going on with %d frames at a time", self.device, self.chunk)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _cores() -> int:
    """CPUs this process may run on: more threads than these would only wait for each other."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


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


def _agree(half: NDArray[np.complex64], full: NDArray[np.complex64]) -> bool:
    difference = float(np.linalg.norm(half - full) / np.linalg.norm(full))
    if difference <= BFLOAT16_TOLERANCE:
        return True
    log.warning("bfloat16 changes the first slice by %.2g of its norm: staying with float32", difference)
    return False


def _of_the_compiler(error: Exception) -> bool:
    """Whether ``torch.compile`` failed, not the network: without a C++ compiler for example."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _listed(phases: list[int]) -> str:
    shown = ", ".join(map(str, phases[:8]))
    return shown if len(phases) <= 8 else f"{shown}, ... ({len(phases)} in all)"


def load_cardiomm(options: MethodOptions) -> LoadedMethod:
    """Weights, the text encoder they were trained with, and the runner.

    Raises
    ------
    WeightsError
        Weights missing or damaged, or made for another text encoder than the one at hand.
    """
    weights = load_weights(options.weights)
    folder = None if options.encoder_folder is None else Path(options.encoder_folder)
    encoder = load_encoder(weights.encoder, folder=folder)
    if weights.encoder_sha256 not in (None, encoder.sha256):
        raise WeightsError(
            f"weights {weights.name} were trained with text encoder {weights.encoder} "
            f"{weights.encoder_sha256}, found {encoder.sha256}: use the encoder they were trained with"
        )
    runner = CardioMMReconstructor(
        weights,
        device=options.device,
        threads=options.threads,
        chunk=options.chunk,
        precision=options.precision,
        compile=options.compile,
        coil_maps=options.coil_maps,
    )
    return LoadedMethod(
        reconstructor=runner,
        encoder=encoder,
        trained_on=_trained_on(weights),
        validated=weights.card.get("validated") is True,
        weights=weights,
    )


def limits_file(weights: str) -> Path:
    """Where the trust limits of weights lie, whether or not they do."""
    return find_weights(weights).with_suffix(LIMITS_SUFFIX)


def _limits(options: MethodOptions, loaded: LoadedMethod) -> Limits | None:
    path = limits_file(options.weights)
    if not path.exists() or loaded.weights is None:
        return None
    limits = load_limits(path)
    if limits.weights_sha256 not in (None, loaded.weights.sha256):
        raise WeightsError(
            f"{path} holds the trust limits of other weights ({limits.weights_sha256}, found "
            f"{loaded.weights.sha256}): make new ones with `recon-node weights calibrate {options.weights}`, "
            "or remove it"
        )
    return limits


def _trained_on(weights: LoadedWeights) -> TrainedOn | None:
    """What the weights' training data covered, as far as their card says."""
    training = weights.card.get("training", {}).get("data", {})
    if not training:
        return None
    words = {slot: frozenset(training[key]) for slot, key in _COVERED.items() if training.get(key)}
    return TrainedOn(max_acceleration=max(training["accelerations"]), words=words)


METHOD = MethodRecord(
    name="cardiomm",
    summary="Text-aware network with data consistency; needs weights.",
    load=load_cardiomm,
    limits=_limits,
    learned=True,
    built_in=True,
    label="CardioMM",
)
