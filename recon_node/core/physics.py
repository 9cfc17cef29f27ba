"""Constants of nature."""

GYROMAGNETIC_HZ_PER_T = 42.577478518e6
"""Of the proton, over 2 pi (CODATA 2018)."""
