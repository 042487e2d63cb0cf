"""The compact model as modules: one step of denoising, its conditioning, its tailors, the decoder."""
