"""What the networks of two or more methods share."""
