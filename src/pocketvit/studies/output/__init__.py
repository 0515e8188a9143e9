"""Writing down what a study found: tables, LaTeX, JSON, a page."""
