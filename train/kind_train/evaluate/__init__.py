"""The numbers of an evaluation, on uint8 image arrays (N, H, W, 3) and what a classifier sees in them.

Nothing heavy is imported here; import the modules themselves.
"""
