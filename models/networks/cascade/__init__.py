"""SPMPGAN and DivSem: three U-Nets of style-preserved modulation, and the style encoder."""
