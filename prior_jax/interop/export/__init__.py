"""Weights and towers as the files of other programs."""
