"""How well carspotter does on whole scenes, beside neat crops."""
