"""The file formats a data set may come in: one reader a file, and `registry.py`, which tells them apart."""
