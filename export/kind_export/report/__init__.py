"""The report of a bundle, from what was counted and measured to its page."""
