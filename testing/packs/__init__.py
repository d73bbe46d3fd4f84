"""Packs: a task as a folder that any method can take, and what comes back from it."""
