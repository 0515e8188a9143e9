"""The file formats of data sets: one reader per module, and `registry.py`, which detects them."""
