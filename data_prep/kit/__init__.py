"""Shared code of all preparers: tables, reports, images, splits, and the writer of a set."""
