"""Labelling an archive: engines beside each other, memory, and whether their rows are the same."""
