"""Training and evaluation configs, one short file a run."""
