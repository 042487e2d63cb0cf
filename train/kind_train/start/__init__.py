"""What a run starts from: a new model, a checkpoint, a DiT of diffusers."""
