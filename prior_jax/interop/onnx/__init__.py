"""Traced functions as ONNX graphs."""
