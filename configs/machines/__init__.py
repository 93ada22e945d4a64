"""Machines to run on or compile for: mesh, chips and advice, in one short file each."""
