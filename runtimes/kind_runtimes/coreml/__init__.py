"""Core ML programs away from macOS: `package` reads a saved .mlpackage, `evaluator` runs it op by op.

Nothing heavy is imported here; import the two modules themselves.
"""
