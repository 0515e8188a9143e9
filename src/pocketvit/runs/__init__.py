"""A run on disk: its folder, its result, and where it was made."""
