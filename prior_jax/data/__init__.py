"""The data pipeline, from prepared records to batches."""
