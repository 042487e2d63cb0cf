"""`cases` measures in fresh processes, each of which is a `worker`; `timing` is the one way of timing.

Nothing heavy is imported here; import the modules themselves.
"""
