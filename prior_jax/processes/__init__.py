"""Coordinates a run's processes: start-up, peers, activities, watchdog, preemption, locks."""
