"""For users of DSPy: `GEPAAtlas`, a Teleprompter with our search, and `AgentModule`, any agent of ours as a DSPy program (docs/bridges.md).

dspy is imported with the first use of one of these names.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

_HOMES = {"AgentModule": "gepa_atlas.bridges.dspy_agent", "GEPAAtlas": "gepa_atlas.bridges.dspy_optimizer"}

__all__ = ["AgentModule", "GEPAAtlas"]

if TYPE_CHECKING:
    from gepa_atlas.bridges.dspy_agent import AgentModule
    from gepa_atlas.bridges.dspy_optimizer import GEPAAtlas


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gepa_atlas.dspy' has no attribute {name!r}; it has {', '.join(__all__)}")
    if importlib.util.find_spec("dspy") is None:
        from gepa_atlas.errors import MissingExtra

        raise MissingExtra(f"gepa_atlas.dspy.{name}", "dspy")
    return vars(importlib.import_module(_HOMES[name]))[name]


def __dir__() -> list[str]:
    return sorted(__all__)
