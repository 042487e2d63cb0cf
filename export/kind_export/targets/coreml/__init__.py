"""The target Core ML."""
