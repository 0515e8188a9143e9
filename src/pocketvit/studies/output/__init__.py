"""Output of a study: tables in Markdown, LaTeX and CSV, and a page."""
