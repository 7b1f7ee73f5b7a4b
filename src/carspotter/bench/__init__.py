"""This machine's speed: cold start, single photos, many photos, and the memory of it."""

from carspotter.bench.measure import Measured, Sizes, measure

__all__ = ["Measured", "Sizes", "measure"]
