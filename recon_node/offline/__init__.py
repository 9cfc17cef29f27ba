"""What works on files: replay, export, inspect."""
