"""Metrics of test runs; every metric reads the 8-bit pictures as saved. See docs/protocols.md."""
