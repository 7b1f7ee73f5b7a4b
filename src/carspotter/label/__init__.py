"""Naming the car on every photo of an archive, and finding cars again in what came of it."""

from carspotter.label.archive import Request, Settings, Summary, label_archive
from carspotter.label.similar import Match, find_similar

__all__ = ["Match", "Request", "Settings", "Summary", "find_similar", "label_archive"]
