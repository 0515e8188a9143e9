"""Augmentation: all changes to pixels between the decoded image and the model."""
