"""A run: the trainer, its processes, its optimizer, its losses and its folder."""
