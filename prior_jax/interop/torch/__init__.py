"""Files and state dicts of torch, read without torch."""
