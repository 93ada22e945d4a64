"""Device meshes, and the rules that shard or replicate each array."""
