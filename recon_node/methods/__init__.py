"""Reconstruction methods, one file a method, and the registry of them."""
