"""What a data set holds and what is wrong with it, before anything is trained on it."""

from carspotter.audit.check import Check, check_data_set
from carspotter.audit.exclude import exclusions
from carspotter.audit.page import page

__all__ = ["Check", "check_data_set", "exclusions", "page"]
