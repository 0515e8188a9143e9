"""Running a study: its plan, its processes, and what it says while it runs."""
