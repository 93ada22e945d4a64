"""State, step, loop, optimizer, checkpoints."""
