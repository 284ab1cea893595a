"""Connectors: one provider a module, each turning an agent in production into the `Agent` port."""

from gepa_atlas.connectors.registry import AgentSpec, Builder, Surroundings, build_agent, providers

__all__ = ["AgentSpec", "Builder", "Surroundings", "build_agent", "providers"]
