"""What a study is: its file, its grid of rows and seeds, and the runs that it asks for."""
