"""The parts of a sweep: its trials, the queue that runs them, and the table of results."""
