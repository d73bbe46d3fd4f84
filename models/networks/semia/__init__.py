"""SemIA: networks of a single picture."""
