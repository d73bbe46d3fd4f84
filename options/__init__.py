"""Command line and YAML options."""
