"""Terms of the training loss beside the denoising one: of a classifier, and of a teacher."""
