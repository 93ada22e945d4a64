"""From prepared records to batches."""
