"""Supervised fine-tuning of image encoders."""
