"""Metrics of deep features: of sets of pictures, and of pairs."""
