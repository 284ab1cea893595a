"""`import gepa` with our search behind `gepa.optimize`. Every other name is the gepa package's own (docs/bridges.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gepa_atlas.bridges.classroom_adapter import ClassroomAdapter
from gepa_atlas.bridges.gepa import OptionRefused, optimize, upstream


def classroom(config: str | Path, *, score: Literal["reward", "delta"] = "reward", failure_score: float | None = None) -> ClassroomAdapter:
    """The agent, data, protocol and judges of a configuration as a GEPAAdapter, with `seed_candidate`, `trainset` and `valset`."""
    from gepa_atlas.build import build_experiment
    from gepa_atlas.config import load_config

    return ClassroomAdapter(build_experiment(load_config(config)), score=score, failure_score=failure_score)


def __getattr__(name: str) -> Any:
    try:
        return vars(upstream())[name]
    except KeyError:
        raise AttributeError(f"module 'gepa_atlas.compat.gepa' has no attribute {name!r}, nor has gepa") from None


__all__ = ["ClassroomAdapter", "OptionRefused", "classroom", "optimize"]
