"""Metrics of pixels alone: no weights."""
