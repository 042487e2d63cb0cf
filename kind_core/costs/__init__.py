"""What models and methods cost."""
