"""A user study: a page of choices between two results, and the count of what participants send back."""
