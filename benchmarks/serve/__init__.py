"""The service under load, under attack, and with things breaking around it."""
