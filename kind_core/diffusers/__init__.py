"""Folders of diffusers, read with the defaults of diffusers' own classes."""
