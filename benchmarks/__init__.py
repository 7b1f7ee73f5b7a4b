"""Measurements that take long: they are run by hand, and their reports are kept."""
