"""What is trained: modules and loss terms put together."""
