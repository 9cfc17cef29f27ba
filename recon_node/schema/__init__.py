"""What settings are made of: checked classes, one field a setting, one line for each mistake.

The node's settings, a training run's and a network's are all made here, so values are read, coerced and
refused by one code.
"""

from recon_node.schema.checked import Checked, Refused, checked, make
from recon_node.schema.fields import Allowed, Setting, setting, settings_of
from recon_node.schema.toml import read_toml

__all__ = [
    "Allowed",
    "Checked",
    "Refused",
    "Setting",
    "checked",
    "make",
    "read_toml",
    "setting",
    "settings_of",
]
