"""What a compiled step will cost on hardware you do not have."""
