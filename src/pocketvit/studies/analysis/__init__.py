"""What a study's results say: accuracies with their spread, comparisons, verdicts."""
