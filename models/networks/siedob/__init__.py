"""SIEDOB: networks of objects, of the background, and of what joins them."""
