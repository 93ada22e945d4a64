"""Pre-training of medical image-and-report encoders in JAX."""

__version__ = "0.1.0"
