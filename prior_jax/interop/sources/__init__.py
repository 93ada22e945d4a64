"""Checkpoints of other code bases as weights of ours."""
