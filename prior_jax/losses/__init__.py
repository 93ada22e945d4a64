"""Loss terms: pure functions on arrays."""
