"""Writes traced functions as ONNX graphs."""
