"""Wall clock over ideal: how much of a concurrency limit a search uses. `python -m benchmarks.scheduler --help`."""
