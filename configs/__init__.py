"""Training and evaluation configs, one short file for each run."""
