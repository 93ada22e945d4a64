"""Sweeps: many runs compared in one table."""
