"""What a Gadgetron chain may ask of the module: targets, modes and properties."""

from __future__ import annotations

from recon_node.mrd.messages import MessageId

TARGETS = {
    "acquisitions": MessageId.ACQUISITION,
    "buckets": MessageId.BUCKET,
    "recon_data": MessageId.RECON_DATA,
}
"""Functions of this module, and the message each takes."""

MODES = ("reconstruct", "both", "deferred", "retrieve", "pass-through")
"""What a module may be told to do; the first unless the node's settings say otherwise."""

PROPERTIES: dict[str, str] = {
    "method": "Reconstruction: a built-in method, one of an installed package, or module:Class.",
    "weights": "Name of shipped or imported weights.",
    "fallback": "Method whose images stand in where the network's are withheld.",
    "policy": "What a failed trust check does: warn or fallback.",
    "device": "auto, cpu or cuda.",
    "noise": "auto, none, or unit-parts behind Gadgetron's NoiseAdjust.",
    "orientation": "auto, conjugate or as-is.",
    "dynamic": "Counter that becomes the time axis: auto, phase, contrast, repetition or set.",
    "gating": "prospective (by the phase counter) or retrospective (by heartbeats).",
    "r_waves": "Where gating sees heartbeats: auto, stamps, triggers or ecg.",
    "phases": "Cardiac phases of retrospective gating.",
    "fill": "Lines that a gated phase misses: none, share or interpolate.",
    "compression": "Fewer virtual coils: none, pca or geometric.",
    "virtual_coils": "How many of them.",
    "maps": "Coil map sets: 1, or 2 where the object is larger than the field of view.",
    "partial_fourier": "Side of k-space that was never measured: zero, homodyne or pocs.",
    "destination": "Configured DICOM destination that the series goes to as well.",
    "priority": "0 to 9: scans of higher priority go first, to the device and to the PACS.",
    "series": "Image series index of the node's images, 1 unless set (for chains that make others as well).",
    "mode": "reconstruct; both (pass the data on as well); deferred (quick images now, the others to the "
    "PACS); retrieve (fetch those); or pass-through (no images, for commissioning).",
    "scan": "With mode retrieve: the id of one deferred scan.",
}
"""Properties that a chain's ``<configuration>`` may hold: name to one line of description."""
