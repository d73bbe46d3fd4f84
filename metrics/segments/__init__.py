"""Metrics of what segmenters see, and the segmenters."""
