"""Runs on Cloud TPU slices that a queue hands out."""
