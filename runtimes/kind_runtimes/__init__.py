"""Run and time a bundle in its real runtime; the command line is `kind-run`."""
