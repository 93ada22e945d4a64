"""Reads, stores and exports weights, under our own names and those of other code bases."""
