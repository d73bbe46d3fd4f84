"""Fills that need no training here: rows to beat in every table."""
