"""What happens to pixels between the decoded image and the model."""
