"""Writes weights and towers as files for other programs."""
