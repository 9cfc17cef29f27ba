"""Destinations and what they speak: DIMSE, STOW-RS, folders."""
