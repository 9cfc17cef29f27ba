"""Weights that come with the package: NAME.safetensors and its manifest NAME.json."""
