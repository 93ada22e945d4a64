"""The tasks that evaluate a model, and how each is run."""
