"""Training objectives: models combined with their loss terms."""
