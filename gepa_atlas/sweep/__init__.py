"""Sweeps: which settings, operators, models and prompts are best for a task, with error bars, on one machine or a cluster."""
