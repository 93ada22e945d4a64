"""Modules: arrays in, arrays out."""
