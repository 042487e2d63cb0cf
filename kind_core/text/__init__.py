"""Models that draw from captions: a diverted PixArt, taken apart from diffusers' and put together again."""
