"""Where runs are started: one file a kind of cluster, with made-up names to be replaced."""
