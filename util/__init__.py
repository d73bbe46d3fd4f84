"""Small helpers that import nothing of this project outside `util`."""
