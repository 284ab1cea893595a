"""gepa_atlas evolves the prompts that make an agent in production better, with evidence.

The names below are imported when they are first used: `import gepa_atlas` itself loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AtlasConfig": "gepa_atlas.config",
    "load_config": "gepa_atlas.config",
    "AtlasError": "gepa_atlas.errors",
    "Candidate": "gepa_atlas.types",
    "Example": "gepa_atlas.types",
    "Lesson": "gepa_atlas.types",
    "RIMReward": "gepa_atlas.rim.reward",
    "Reward": "gepa_atlas.types",
    "Verdict": "gepa_atlas.types",
}

__all__ = ["AtlasConfig", "AtlasError", "Candidate", "Example", "Lesson", "RIMReward", "Reward", "Verdict", "__version__", "load_config"]

if TYPE_CHECKING:
    from gepa_atlas.config import AtlasConfig, load_config
    from gepa_atlas.errors import AtlasError
    from gepa_atlas.rim.reward import RIMReward
    from gepa_atlas.types import Candidate, Example, Lesson, Reward, Verdict


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gepa_atlas' has no attribute {name!r}; it has {', '.join(__all__)}")
    return vars(importlib.import_module(_HOMES[name]))[name]


def __dir__() -> list[str]:
    return sorted(__all__)
