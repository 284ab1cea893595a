"""Who judges when there is no key: what keys a configuration's models want, and the program that stands in for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.rim.config import RimConfig
from gepa_atlas.settings import load

# What litellm reads for the vendors that need nothing else; the first is named in messages.
VENDOR_KEYS = {"openai": ("OPENAI_API_KEY",), "anthropic": ("ANTHROPIC_API_KEY",), "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY")}
PROGRAM = {"judges": [{"type": "contains", "name": "says it", "whole_words": True, "ignore_case": True}]}


def lacking_key(spec: Any) -> str | None:
    """The variable that a model's entry needs and nobody set; None when it needs none or that cannot be known."""
    if isinstance(spec, Mapping):
        params = spec.get("params") or {}
        if spec.get("provider") != "litellm" or not isinstance(params, Mapping) or {"api_base", "api_key_env"} & params.keys():
            return None
        spec = params.get("model")
    if not isinstance(spec, str) or "/" not in spec:
        return None
    names = VENDOR_KEYS.get(spec.split("/", 1)[0], ())
    return names[0] if names and not any(os.environ.get(name) for name in names) else None


def lacking_keys(config: RimConfig) -> list[str]:
    """Variables that the judges' models need and nobody set."""
    judges = (*config.judges, *(config.escalate.judges if config.escalate else ()), *([config.watch] if config.watch else ()))
    rows = [judge.model_dump() for judge in judges] + ([config.compare.model_dump()] if config.compare else [])
    return sorted({key for row in rows for spec in _specs(row) if (key := lacking_key(spec)) is not None})


def _specs(row: Mapping[str, Any]) -> Iterator[Any]:
    for name in ("model", "small", "large"):
        yield row.get(name)


def default_rewards(path: Path, read: Callable[[Path], RimConfig]) -> tuple[RimConfig, str]:
    """The configuration at `path` when it is there and its keys are, else a program; and a note on why not."""
    if path.is_file():
        config = read(path)
        lacking = lacking_keys(config)
        if not lacking:
            return config, ""
        why = f"{path} needs {', '.join(lacking)}, not set here"
    else:
        why = f"there is no {path} here"
    return load(RimConfig, PROGRAM, "rim"), f"{why}: a program judges instead (does the answer say the gold one?)"
