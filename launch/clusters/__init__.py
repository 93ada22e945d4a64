"""Jobs for Slurm, Cloud TPU and Kubernetes."""
