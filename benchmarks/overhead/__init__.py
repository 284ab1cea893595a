"""What the engine itself costs. `python -m benchmarks.overhead --help`."""
