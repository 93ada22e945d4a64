"""What every program does before its own work: flags, machine, devices, config, data."""
