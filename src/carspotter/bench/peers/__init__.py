"""What users would pick instead, one module each, run by the Python of another environment.

Nothing here is imported by carspotter itself but `clock`: each module needs packages that only
that environment has. A peer is a function `load(task)` that gives two others: one that answers a
photo, and one that answers many as its own documentation does it over a list.
"""
