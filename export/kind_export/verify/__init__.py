"""The proof: programs are run as a device would and held against the eager model."""
