"""Loss terms as pure functions on arrays."""
