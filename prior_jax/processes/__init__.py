"""Who runs where and is alive: start-up, peers, activities, watchdog, preemption, lock."""
