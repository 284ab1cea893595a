"""gepa_atlas evolves the prompts that make an agent in production better, with evidence.

The names below are imported when they are first used: `import gepa_atlas` itself loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AtlasConfig": "gepa_atlas.config",
    "AtlasError": "gepa_atlas.errors",
    "Candidate": "gepa_atlas.types",
    "Draft": "gepa_atlas.types",
    "Evolution": "gepa_atlas.evolve.engine",
    "Example": "gepa_atlas.types",
    "Lesson": "gepa_atlas.types",
    "Operator": "gepa_atlas.evolve.portfolio",
    "Optimized": "gepa_atlas.api",
    "Outcome": "gepa_atlas.types",
    "Plan": "gepa_atlas.evolve.planner",
    "RIMReward": "gepa_atlas.rim.reward",
    "Reward": "gepa_atlas.types",
    "SlotKind": "gepa_atlas.types",
    "Verdict": "gepa_atlas.types",
    "lesson": "gepa_atlas.api",
    "load_config": "gepa_atlas.config",
    "optimize": "gepa_atlas.api",
}

__all__ = [
    "AtlasConfig", "AtlasError", "Candidate", "Draft", "Evolution", "Example", "Lesson", "Operator", "Optimized", "Outcome", "Plan",
    "RIMReward", "Reward", "SlotKind", "Verdict", "__version__", "lesson", "load_config", "optimize",
]  # fmt: skip

if TYPE_CHECKING:
    from gepa_atlas.api import Optimized, lesson, optimize
    from gepa_atlas.config import AtlasConfig, load_config
    from gepa_atlas.errors import AtlasError
    from gepa_atlas.evolve.engine import Evolution
    from gepa_atlas.evolve.planner import Plan
    from gepa_atlas.evolve.portfolio import Operator
    from gepa_atlas.rim.reward import RIMReward
    from gepa_atlas.types import Candidate, Draft, Example, Lesson, Outcome, Reward, SlotKind, Verdict


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gepa_atlas' has no attribute {name!r}; it has {', '.join(__all__)}")
    return vars(importlib.import_module(_HOMES[name]))[name]


def __dir__() -> list[str]:
    return sorted(__all__)
