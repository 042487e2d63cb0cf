"""Choosing how to export so that a budget of size and time is met with the least measured error.

budget -> candidates (precision, rank, form, steps) -> forecast of each -> error of those that fit -> the best of them.
Nothing is lowered to choose; what was chosen is exported and held against the budget and the gates like any export.
"""
