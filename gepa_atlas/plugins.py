"""Builders by provider name: built in and imported on demand, or from another package by entry point."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from gepa_atlas.errors import ConfigError, ContractError


def providers(built_in: Mapping[str, str], group: str) -> list[str]:
    """Names of every provider that can be asked for, built in or from other packages."""
    return sorted({*built_in, *_entry_points(group)})


def builder(provider: str, built_in: Mapping[str, str], group: str, *, where: str, near_from: float, else_hint: str = "") -> Any:
    """The builder of a provider; `built_in` maps names to modules with a `build`. Raises ConfigError with the nearest known name."""
    if provider in built_in:
        return importlib.import_module(built_in[provider]).build
    found = _entry_points(group).get(provider)
    if found is None:
        known = providers(built_in, group)
        near = difflib.get_close_matches(provider, known, 1, near_from)
        hint = f"did you mean {near[0]!r}?" if near else f"known providers: {', '.join(known)}{else_hint}"
        raise ConfigError(f"{where}: unknown provider {provider!r}; {hint}")
    try:
        loaded = found.load()
    except ImportError as error:
        raise ConfigError(f"{where}: provider {provider!r} of {found.value!r} cannot be imported: {error}") from None
    if not callable(loaded):
        raise ContractError(f"the entry point {provider!r} of {group} is not a function: {found.value!r}")
    return loaded


def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}
