"""What runs a program: a file for each engine of `kind_runtimes.engine_rows`."""

import kind_core as kind_core  # before any engine: it says that none reports what it runs
