"""`observe:` of a configuration: who is told what a run does. Nothing here changes what it finds."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gepa_atlas.settings import Settings


class OpenTelemetryConfig(Settings):
    """Spans of run, slots and calls. Without an endpoint: the tracer provider that the program has set, or what OTEL_* variables say."""

    endpoint: str | None = None  # of a collector that speaks OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces
    service: str = Field("gepa_atlas", min_length=1)


class PrometheusConfig(Settings):
    """Metrics at http://127.0.0.1:<port>/metrics while the run goes on, or in a file for the node exporter, or both."""

    port: int | None = Field(None, ge=0, le=65535)
    textfile: str | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.port is None and self.textfile is None:
            raise ValueError("says neither port nor textfile; give one of them")
        if self.textfile is not None and not self.textfile.endswith(".prom"):
            raise ValueError(f"textfile: {self.textfile!r} does not end in .prom, and the node exporter reads no other files")
        return self


class MLflowConfig(Settings):
    tracking_uri: str = Field("sqlite:///mlflow.db", min_length=1)
    experiment: str = Field("gepa_atlas", min_length=1)


class WandbConfig(Settings):
    """`offline` writes below `directory`, for `wandb sync`; `online` needs the key that wandb itself asks for (WANDB_API_KEY)."""

    project: str = Field("gepa_atlas", min_length=1)
    mode: Literal["offline", "online"] = "offline"
    directory: str = "."


class TrackioConfig(Settings):
    """Local only: `trackio show` reads the directory (TRACKIO_DIR)."""

    project: str = Field("gepa_atlas", min_length=1)
    directory: str | None = None  # default: Trackio's own


class ObserveConfig(Settings):
    opentelemetry: OpenTelemetryConfig | None = None
    prometheus: PrometheusConfig | None = None
    mlflow: MLflowConfig | None = None
    wandb: WandbConfig | None = None
    trackio: TrackioConfig | None = None
