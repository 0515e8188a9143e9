"""Definition of a study: its file, its rows and seeds, and the runs it asks for."""
