"""Raw data files, one module a format."""
