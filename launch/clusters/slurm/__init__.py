"""Runs and sweeps on a Slurm cluster."""
