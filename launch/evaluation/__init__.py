"""The tasks that evaluate a model, and the code that runs each of them."""
