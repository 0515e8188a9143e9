"""Data sets from elsewhere: the catalogue of known sets, the Hugging Face Hub, downloads, and where they are kept."""
