"""Analysis of a study's results: accuracies with their spread, comparisons, verdicts."""
