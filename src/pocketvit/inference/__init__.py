"""Using a trained model: load it, classify with it, measure it."""
