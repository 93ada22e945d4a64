"""The benchmarks of launch.bench: what each repeats, how it is timed, and how it is compared."""
