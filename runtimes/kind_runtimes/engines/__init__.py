"""What runs a program: a row an engine in `table`, a file for each."""
