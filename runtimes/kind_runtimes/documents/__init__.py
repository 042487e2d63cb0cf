"""The documents of a bundle as types: what is written, read and published as a JSON Schema is said once, here."""
