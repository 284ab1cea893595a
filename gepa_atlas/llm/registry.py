"""From a name or `{provider, params}` to a model. Each provider is one module, imported when it is asked for.

A third party registers, in the entry point group `gepa_atlas.models`, a function `build(params, where) -> ChatModel` under its
name; `where` is the key path of the params, for messages.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

from gepa_atlas.errors import ConfigError, ContractError
from gepa_atlas.ports import ChatModel
from gepa_atlas.settings import Settings, load

GROUP = "gepa_atlas.models"


class ModelSpec(Settings):
    """A model in a configuration; `"local"` is short for `{provider: local}`, `"vendor/model"` for litellm's model of that name."""

    provider: str
    params: dict[str, Any] = Field(default_factory=dict)


Builder = Callable[[Mapping[str, Any], str], ChatModel]

_BUILT_IN = {
    "litellm": "gepa_atlas.llm.litellm_model",
    "local": "gepa_atlas.llm.local",
    "openai.chat": "gepa_atlas.llm.openai_compatible",
    "openai_compatible": "gepa_atlas.llm.openai_compatible",
}


def build_model(spec: ModelSpec | str | Mapping[str, Any], where: str = "model") -> ChatModel:
    """The model of `spec`. Makes no call and imports no heavy library.

    Raises ConfigError (unknown provider, wrong params) or MissingExtra.
    """
    read = read_spec(spec, where)
    return _builder(read.provider, where)(read.params, f"{where}.params")


def read_spec(spec: ModelSpec | str | Mapping[str, Any], where: str = "model") -> ModelSpec:
    if isinstance(spec, ModelSpec):
        return spec
    if isinstance(spec, str):
        return ModelSpec(provider="litellm", params={"model": spec}) if "/" in spec else ModelSpec(provider=spec)
    return load(ModelSpec, spec, where)


def providers() -> list[str]:
    """Names of every provider that can be asked for, built in or from other packages."""
    return sorted({*_BUILT_IN, *_entry_points()})


def _builder(provider: str, where: str) -> Builder:
    if provider in _BUILT_IN:
        build: Builder = importlib.import_module(_BUILT_IN[provider]).build
        return build
    found = _entry_points().get(provider)
    if found is None:
        known = providers()
        near = difflib.get_close_matches(provider, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known providers: {', '.join(known)}, or 'vendor/model' for any model of litellm"
        raise ConfigError(f"{where}: unknown provider {provider!r}; {hint}")
    try:
        loaded = found.load()
    except ImportError as error:
        raise ConfigError(f"{where}: provider {provider!r} of {found.value!r} cannot be imported: {error}") from None
    if not callable(loaded):
        raise ContractError(f"the entry point {provider!r} of {GROUP} is not a function: {found.value!r}")
    third_party: Builder = loaded
    return third_party


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
