"""Photos from whatever holds them to batches: sources, decoding, sets of photos or of their latents, captions."""
