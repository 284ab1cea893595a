"""Real search on the embedded model. `python -m benchmarks.smol --help`."""
