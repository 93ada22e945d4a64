"""PRIOR at full size."""
