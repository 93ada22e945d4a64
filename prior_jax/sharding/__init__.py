"""Meshes, placement rules and process start-up."""
