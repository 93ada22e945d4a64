"""Imports checkpoints of other code bases as our weights."""
