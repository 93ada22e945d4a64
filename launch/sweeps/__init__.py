"""The parts of a sweep: its trials, their queue, their table."""
