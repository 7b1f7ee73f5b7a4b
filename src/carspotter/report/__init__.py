"""Evaluations: what is measured of a model, its files, its page, and the comparison of several."""
