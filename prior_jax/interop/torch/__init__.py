"""Reads files and state dicts of torch, without torch."""
