"""Sweeps: many runs and one table."""
