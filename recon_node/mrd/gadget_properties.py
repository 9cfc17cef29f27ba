"""What a Gadgetron chain may ask of the module beside the node's settings: targets, modes, properties."""

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

CHAIN_PROPERTIES: dict[str, str] = {
    "series": "Image series index of the node's images, 1 unless set (for chains that make others as well).",
    "mode": "reconstruct; both (pass the data on as well); deferred (quick images now, the others to the "
    "PACS); retrieve (fetch those); or pass-through (no images, for commissioning).",
    "scan": "With mode retrieve: the id of one deferred scan.",
    "ticket": "With mode retrieve: what was handed over with the quick images.",
}
"""Properties that belong to a chain: name to one line of description. The others are settings."""
