"""From a name or `{provider, params}` to a model. Each provider is one module, imported when it is asked for.

A third party registers, in the entry point group `gepa_atlas.models`, a function `build(params, where) -> ChatModel` under its
name; `where` is the key path of the params, for messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

from gepa_atlas import plugins
from gepa_atlas.ports import ChatModel
from gepa_atlas.settings import Settings, load

GROUP = "gepa_atlas.models"


class ModelSpec(Settings):
    """A model in a configuration; `"local"` is short for `{provider: local}`, `"vendor/model"` for litellm's model of that name."""

    provider: str
    params: dict[str, Any] = Field(default_factory=dict)


Builder = Callable[[Mapping[str, Any], str], ChatModel]

_BUILT_IN = {
    "huggingface": "gepa_atlas.llm.huggingface",
    "litellm": "gepa_atlas.llm.litellm_model",
    "local": "gepa_atlas.llm.local",
    "openai.chat": "gepa_atlas.llm.openai_compatible",
    "openai.responses": "gepa_atlas.llm.openai_responses",
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
    return plugins.providers(_BUILT_IN, GROUP)


def _builder(provider: str, where: str) -> Builder:
    build: Builder = plugins.builder(
        provider, _BUILT_IN, GROUP, where=where, near_from=0.5, else_hint=", or 'vendor/model' for any model of litellm"
    )
    return build
