"""The start of every program: flags, machine, devices, config and data."""
