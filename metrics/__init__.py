"""What a test run is scored by; every metric reads the 8-bit pictures as saved. See docs/protocols.md."""
