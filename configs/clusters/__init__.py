"""Clusters to start runs on: one file for each kind, with placeholder names to replace."""
