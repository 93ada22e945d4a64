"""Runs on Kubernetes, as a JobSet."""
