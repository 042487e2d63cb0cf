"""The commands of `kind-bench`, by what they are about. Each parses, calls one library function and prints."""
