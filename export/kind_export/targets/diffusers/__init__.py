"""The target diffusers."""
