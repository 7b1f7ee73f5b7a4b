"""The localiser: where on a photo the cars are."""
