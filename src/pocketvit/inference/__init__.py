"""Use a trained model: load it, classify with it, evaluate it."""
