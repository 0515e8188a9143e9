"""Downloads of data sets: the catalogue of known ones, the Hugging Face Hub, and where files are stored."""
