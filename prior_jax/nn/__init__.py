"""Neural network modules: functions from arrays to arrays."""
