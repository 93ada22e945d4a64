"""Forecasts of a compiled step's memory and time on hardware you do not have."""
