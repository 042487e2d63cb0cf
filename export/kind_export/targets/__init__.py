"""What can be written: a row a target in `rows`, what a target offers in `target`, a folder for each."""
