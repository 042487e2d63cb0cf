"""The commands of `kind-train`, by what they work on. They parse, call one library function and print."""
