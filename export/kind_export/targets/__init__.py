"""What can be written: what a target offers in `target`, a folder for each."""
