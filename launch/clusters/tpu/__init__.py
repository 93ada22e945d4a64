"""Runs on Cloud TPU slices that come from a queue."""
