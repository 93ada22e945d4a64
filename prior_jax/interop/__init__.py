"""Names and weights of other code bases."""
