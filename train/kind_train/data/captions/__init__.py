"""Captions of photos: found beside them, embedded once by a text encoder, read by the model that is trained."""
