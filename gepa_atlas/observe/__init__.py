"""Figures of a run for other programs: OpenTelemetry, Prometheus, MLflow, Weights & Biases, Trackio. docs/live.md."""
