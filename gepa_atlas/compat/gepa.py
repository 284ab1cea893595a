"""`import gepa` with our search behind `gepa.optimize`. Every other name is the gepa package's own (docs/bridges.md)."""

from __future__ import annotations

from typing import Any

from gepa_atlas.bridges.gepa import OptionRefused, optimize, upstream


def __getattr__(name: str) -> Any:
    try:
        return vars(upstream())[name]
    except KeyError:
        raise AttributeError(f"module 'gepa_atlas.compat.gepa' has no attribute {name!r}, nor has gepa") from None


__all__ = ["OptionRefused", "optimize"]
