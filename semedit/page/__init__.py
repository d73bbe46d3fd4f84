"""The page: a server that edits pictures in a browser, for the person who started it."""
