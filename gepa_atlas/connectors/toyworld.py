"""The `toyworld` provider: an agent with a known optimum and no model, for trials of the optimizer itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.ports import Agent


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    from gepa_atlas.testing.toyworld import toy_agent

    return toy_agent(dict(params))
