"""What was measured, here or on a phone: `importing` takes the latter in, `compare` holds two files together."""
