"""Simulated worlds of prompt optimization: text in, text out, analytic truth. `python -m benchmarks.simland --help`."""
