"""What every provider's configuration says about the place it calls: how long, how many at once, how fast."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from gepa_atlas.ports import Endpoint
from gepa_atlas.settings import Settings


class EndpointLimits(Settings):
    """Limits of one endpoint; they never change an answer. Providers that call the same host share its limits: the stricter hold."""

    timeout: float = Field(60.0, gt=0)  # seconds of wall clock for one call
    max_concurrency: int = Field(16, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)

    def endpoint_at(self, name: str) -> Endpoint:
        return Endpoint(name, self.max_concurrency, self.timeout, self.requests_per_minute)

    def answering(self, *also_without: str) -> dict[str, Any]:
        """What of this configuration can change an answer, as JSON: all but the limits, and but what the caller names."""
        return self.model_dump(mode="json", exclude={*EndpointLimits.model_fields, *also_without})
