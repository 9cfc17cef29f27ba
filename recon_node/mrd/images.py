"""Reconstructed images to MRD IMAGE messages that Gadgetron's and a vendor's tools understand, and back."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recon_node.core.acquisition import TIME_STAMP_UNIT_MS
from recon_node.core.errors import InconsistentReadouts
from recon_node.core.scan import ScanHeader, SliceGeometry, SliceIndex
from recon_node.core.types import ImageSeries, MadeBy, Verdict
from recon_node.mrd.messages import IMAGE_HEADER, ImageMessage
from recon_node.mrd.meta import Values, meta_xml, parse_meta

PixelType = Literal["float32", "uint16", "complex64"]

IMAGE_TYPES = {"magnitude": 1, "complex": 5}
"""ISMRMRD image types (``ISMRMRD_ImageTypes``)."""

DISCLAIMER = "not for clinical use"
_UINT16_TOP = 4095
_WINDOW_PERCENTILE = 99.5
_LEAST_WINDOW = 10
"""Whole numbers below it are too coarse: the viewer finds its own window."""
_UINT32 = np.iinfo(np.uint32).max


def image_messages(
    images: ImageSeries,
    *,
    series_index: int = 1,
    description: str | None = None,
    verdict: Verdict | None = None,
    pixels: PixelType = "float32",
    attributes: Mapping[str, Values] | None = None,
    phases: tuple[int, int] | None = None,
) -> list[ImageMessage]:
    """One MRD IMAGE message per cardiac phase.

    Parameters
    ----------
    images : ImageSeries
        `(phase, y, x)` complex64.
    series_index : int
        `image_series_index`: separates series (methods) from each other; at least 1.
    description : str, optional
        Series description; by default the protocol's name and the method.
    verdict : Verdict, optional
        Trust verdict, written into the attributes.
    pixels : str
        ``float32`` magnitude, ``uint16`` magnitude scaled to 0..4095 with one slope for the slice
        (value = stored x RescaleSlope), or ``complex64``.
    attributes : mapping, optional
        More meta attributes; they replace those of the same name.
    phases : (int, int), optional
        Place of the first image on the phase axis, and how many there are, where `images` are some of them.

    Returns
    -------
    list of ImageMessage
        In order of phase, data `(1, 1, y, x)`. Lengths in mm, time stamps in units of 2.5 ms
        (ISMRMRD ``ImageHeader``).
    """
    data, slope = _pixels(images.data, pixels)
    meta = _attributes(images, description, verdict, slope, np.abs(images.data) / slope)
    meta.update(attributes or {})
    first, count = phases or (0, len(data))
    messages = []
    for phase, image in enumerate(data):
        head = _head(images, phase, series_index)
        head["phase"] = first + phase
        head["image_index"] = (images.index.slice * count + first + phase + 1) % (1 << 16)
        head["image_type"] = IMAGE_TYPES["complex" if pixels == "complex64" else "magnitude"]
        text = meta_xml({**meta, **_times(images, phase)})
        messages.append(ImageMessage(head=head, attributes=text, data=image[None, None]))
    return messages


def _pixels(data: NDArray[np.complex64], pixels: PixelType) -> tuple[NDArray[Any], float]:
    if pixels == "complex64":
        return data, 1.0
    magnitude = np.abs(data)
    if pixels == "float32":
        return magnitude, 1.0
    top = float(magnitude.max(initial=0.0))
    slope = top / _UINT16_TOP if top > 0 else 1.0
    return np.round(magnitude / np.float32(slope)).astype(np.uint16), slope


def _head(images: ImageSeries, phase: int, series_index: int) -> NDArray[Any]:
    geometry, index = images.geometry, images.index
    head = np.zeros(1, IMAGE_HEADER)
    head["version"] = 1
    head["field_of_view"] = geometry.fov_mm
    head["position"] = geometry.position_mm
    for name in ("read_dir", "phase_dir", "slice_dir"):
        head[name] = getattr(geometry, name)
    for name in ("slice", "contrast", "set", "repetition"):
        head[name] = getattr(index, name)
    head["image_series_index"] = series_index
    if images.acquisition_times_s is not None:
        head["acquisition_time_stamp"] = _stamp(images.acquisition_times_s[phase] * 1000)
    if images.trigger_times_ms is not None:
        head["physiology_time_stamp"][0, 0] = _stamp(images.trigger_times_ms[phase])
    return head


def _stamp(milliseconds: float) -> int:
    return min(max(round(milliseconds / TIME_STAMP_UNIT_MS), 0), int(_UINT32))


def _times(images: ImageSeries, phase: int) -> dict[str, Values]:
    if images.trigger_times_ms is None:
        return {}
    return {"TriggerTime": images.trigger_times_ms[phase]}


def _attributes(
    images: ImageSeries,
    description: str | None,
    verdict: Verdict | None,
    slope: float,
    magnitude: NDArray[np.floating[Any]],
) -> dict[str, Values]:
    made = images.made_by
    name = description or " ".join(filter(None, (images.header.protocol, made.method)))
    finite = magnitude[np.isfinite(magnitude)]
    top = float(np.percentile(finite, _WINDOW_PERCENTILE)) if finite.size else 1.0
    comment = f"{name}: {DISCLAIMER}"
    geometry = images.geometry
    meta: dict[str, Values] = {
        "DataRole": "Image",
        "GADGETRON_DataRole": "Image",
        "GADGETRON_SeqDescription": f"_{made.method}",
        "GADGETRON_ImageComment": comment,
        "GADGETRON_ImageProcessingHistory": f"recon-node {made.method}",
        "SeriesDescription": name,
        "ImageComment": comment,
        "ImageComments": comment,
        "RescaleSlope": _number(slope),
        "Keep_image_geometry": 1,
        "ImageRowDir": geometry.read_dir,
        "ImageColumnDir": geometry.phase_dir,
        "ImageSliceNormDir": geometry.slice_dir,
        "GeometryKnown": str(geometry.known).lower(),
        "ReconMethod": made.method,
        "ReconVersion": made.version,
        **_window(top),
    }
    if made.weights is not None:
        meta["ReconWeights"] = made.weights
    if made.weights_sha256 is not None:
        meta["ReconWeightsSha256"] = made.weights_sha256
    if verdict is not None:
        meta["TrustVerdict"] = verdict.verdict
        meta["TrustScore"] = _number(verdict.score)
        if verdict.expected is not None:
            meta["TrustExpected"] = verdict.expected.sentence
        meta["TrustReasons"] = verdict.reasons or ("none",)
    return meta


def _window(top: float) -> dict[str, Values]:
    """Whole numbers: scanners read them as such, and were seen to flatten the display by fractions."""
    width = round(top)
    if width < _LEAST_WINDOW:
        return {}
    centre = round(top / 2)
    named = {"WindowCenter": centre, "WindowWidth": width}
    return {f"{whose}{name}": value for whose in ("", "GADGETRON_") for name, value in named.items()}


def _number(value: float) -> str:
    return f"{value:.9g}"


def image_series(messages: Iterable[ImageMessage], header: ScanHeader) -> list[ImageSeries]:
    """Images that arrived as messages, by slice, as the stages know them (for passing on to DICOM).

    Parameters
    ----------
    messages : iterable of ImageMessage
        2D images of one channel; phases may arrive in any order.
    header : ScanHeader
        Of the scan they belong to.

    Returns
    -------
    list of ImageSeries
        In order of series, slice, contrast, set and repetition; phases sorted. A message without a
        field of view (which the ismrmrd package's `from_array` leaves at 0) takes the header's.

    Raises
    ------
    InconsistentReadouts
        Images of one slice differ in size, a phase came twice, or an image is no 2D image.
    SourceError
        Attributes that are no XML.
    """
    groups: dict[tuple[int, ...], list[ImageMessage]] = defaultdict(list)
    for message in messages:
        head = message.head[0]
        names = ("image_series_index", "slice", "contrast", "set", "repetition")
        groups[tuple(int(head[name]) for name in names)].append(message)
    return [_series(groups[key], key, header) for key in sorted(groups)]


def _series(messages: list[ImageMessage], key: tuple[int, ...], header: ScanHeader) -> ImageSeries:
    _, slice_, contrast, set_, repetition = key
    messages = sorted(messages, key=lambda m: int(m.head["phase"][0]))
    phases = [int(m.head["phase"][0]) for m in messages]
    shapes = {m.data.shape for m in messages}
    if len(shapes) != 1 or len(set(phases)) != len(phases):
        raise InconsistentReadouts(
            f"images of slice {slice_} have sizes {sorted(shapes)} and phases {phases}, "
            "expected one size and each phase once"
        )
    (shape,) = shapes
    if shape[:2] != (1, 1):
        raise InconsistentReadouts(f"image of slice {slice_} has shape {shape}, expected (1, 1, y, x)")
    meta = parse_meta(messages[0].attributes)
    slope = _float(meta, "RescaleSlope", 1.0)
    data = np.stack([m.data[0, 0] for m in messages]).astype(np.complex64) * np.complex64(slope)
    heads = np.concatenate([m.head for m in messages])
    return ImageSeries(
        data=data,
        geometry=_geometry(heads[0], header),
        header=header,
        index=SliceIndex(slice=slice_, contrast=contrast, set=set_, repetition=repetition),
        made_by=MadeBy(
            method=meta.get("ReconMethod", ("received",))[0],
            version=meta.get("ReconVersion", ("unknown",))[0],
            weights=meta.get("ReconWeights", (None,))[0],
            weights_sha256=meta.get("ReconWeightsSha256", (None,))[0],
        ),
        trigger_times_ms=_stamps(heads["physiology_time_stamp"][:, 0], 1.0),
        acquisition_times_s=_stamps(heads["acquisition_time_stamp"], 1000.0),
    )


def _stamps(stamps: NDArray[Any], per_unit: float) -> tuple[float, ...] | None:
    return tuple((stamps * TIME_STAMP_UNIT_MS / per_unit).tolist()) if stamps.any() else None


def _float(meta: Mapping[str, tuple[str, ...]], name: str, default: float) -> float:
    try:
        value = float(meta[name][0])
    except (KeyError, IndexError, ValueError):
        return default
    return value if math.isfinite(value) else default


def _geometry(head: NDArray[Any], header: ScanHeader) -> SliceGeometry:
    directions = {n: tuple(float(v) for v in head[n]) for n in ("read_dir", "phase_dir", "slice_dir")}
    known = all(any(direction) for direction in directions.values())
    if not known:
        directions = {"read_dir": (1.0, 0.0, 0.0), "phase_dir": (0.0, 1.0, 0.0), "slice_dir": (0.0, 0.0, 1.0)}
    fov = tuple(float(v) for v in head["field_of_view"])
    x, y, z = fov if all(length > 0 for length in fov) else header.recon_fov_mm
    px, py, pz = (float(v) for v in head["position"])
    return SliceGeometry(
        position_mm=(px, py, pz),
        read_dir=_triple(directions["read_dir"]),
        phase_dir=_triple(directions["phase_dir"]),
        slice_dir=_triple(directions["slice_dir"]),
        fov_mm=(x, y, z),
        known=known,
    )


def _triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    x, y, z = values
    return x, y, z
