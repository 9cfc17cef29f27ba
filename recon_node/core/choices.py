"""Words that a user may choose between: each set once, for the settings and for the stage that acts on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
"""Where to compute."""

Orientation = Literal["auto", "conjugate", "as-is"]
"""Sign of the k-space axes (`recon_node.prep.geometry`)."""
Dynamic = Literal["auto", "phase", "contrast", "repetition", "set"]
"""Counter that becomes the time axis."""
NoiseHandling = Literal["auto", "none", "unit-parts"]
"""What is done with the noise scan."""
Gating = Literal["prospective", "retrospective"]
"""Cardiac phases by the header's counter, or by the heartbeats."""
RWaves = Literal["auto", "stamps", "triggers", "ecg"]
"""Where heartbeats are seen."""
Fill = Literal["none", "share", "interpolate"]
"""What stands in for lines that a gated phase misses."""
CoilCompression = Literal["pca", "geometric"]
"""Ways to fewer virtual coils."""

PartialFourier = Literal["homodyne", "pocs"]
"""Ways to fill the side of k-space that was never measured."""
Quantity = Literal["magnitude", "phase", "velocity", "t1", "t2", "g-factor", "snr", "expected-error"]
"""What pixels show."""
Turn = Literal["none", "radiological"]
"""Whether images are turned as radiologists look at them."""

Precision = Literal["auto", "float32", "bfloat16"]
"""Number format inside the network; `auto` takes the faster one where it is known to change nothing."""
MapSource = Literal["auto", "espirit", "learned"]
"""Coil maps that the network gets."""

Format = Literal["mr", "enhanced-mr", "legacy-enhanced-mr"]
"""SOP classes of images."""
Compression = Literal["none", "rle", "jpeg-ls", "jpeg-2000"]
"""Transfer syntaxes of pixel data, all lossless."""
Mark = Literal["none", "overlay", "burn"]
"""How a verdict is written on the picture."""
MARKS: Mapping[Format, tuple[Mark, ...]] = {
    "mr": ("none", "overlay", "burn"),
    "enhanced-mr": ("none",),
    "legacy-enhanced-mr": ("none", "burn"),
}
"""Marks on the picture that a format holds: the SOP class of Enhanced MR forbids burnt-in text."""

InstanceState = Literal["waiting", "stored", "delivered", "dead"]
"""Where an instance is on its way to a destination."""
Believed = Literal["pass", "warn", "fallback"]
"""How far an image is to be believed."""
Distrust = Literal["warn", "fallback", "both", "hold"]
"""What is done with an image that is not to be believed."""

Order = Literal["newest", "oldest"]
"""Which of two waiting scans the device takes first."""
LogStyle = Literal["text", "json"]
"""Form of a log line."""
