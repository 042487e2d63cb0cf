"""How many bits which layer gets."""
