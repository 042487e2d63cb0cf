"""What runs a program: a file for each engine of `kind_runtimes.engine_rows`."""
