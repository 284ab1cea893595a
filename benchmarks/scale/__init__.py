"""What a run takes, as it grows: measured small, predicted large. `python -m benchmarks.scale --help`."""
