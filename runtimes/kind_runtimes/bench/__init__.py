"""Measuring bundles; the command line is `kind-bench`.

`session` measures in fresh processes, each of which is a `worker`; `measure` is the one way of timing. `results` are
what was measured, here or on a phone; `importing` takes the latter in, `adb` fetches them; `compare` holds two files
against each other. Nothing heavy is imported here; import the modules themselves.
"""
