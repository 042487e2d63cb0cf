"""The target LiteRT."""
