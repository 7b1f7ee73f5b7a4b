"""The HTTP service: an API, its metrics, and a page. It uses `Spotter`'s public methods alone."""
