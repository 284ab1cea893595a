"""From `{provider, params}` to an agent. Each provider is one module, imported when it is asked for; packages add more by entry point.

A third party registers, in the entry point group `gepa_atlas.agents`, a function `build(params, surroundings) -> Agent` under its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from gepa_atlas import plugins
from gepa_atlas.ports import Agent, ChatModel
from gepa_atlas.settings import Settings

GROUP = "gepa_atlas.agents"


class AgentSpec(Settings):
    """An agent in a configuration: `agents.student`."""

    provider: str
    params: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a provider may need beside its params. `where` is the key path of the params, for messages."""

    build_model: Callable[[Any], ChatModel]
    base_dir: Path  # relative paths in params start here: the directory of the configuration file
    where: str


Builder = Callable[[Mapping[str, Any], Surroundings], Agent]

_BUILT_IN = {
    "chat": "gepa_atlas.connectors.chat",
    "cli.command": "gepa_atlas.connectors.cli_command",
    "dspy.module": "gepa_atlas.connectors.dspy_module",
    "http.api": "gepa_atlas.connectors.http_api",
    "huggingface": "gepa_atlas.connectors.huggingface_chat",
    "langgraph": "gepa_atlas.connectors.langgraph_graph",
    "litellm": "gepa_atlas.connectors.litellm_chat",
    "mcp": "gepa_atlas.connectors.mcp_tool",
    "openai.assistant": "gepa_atlas.connectors.openai_assistant",
    "openai.chat": "gepa_atlas.connectors.openai_chat",
    "openai.responses": "gepa_atlas.connectors.openai_responses",
    "openai.sdk": "gepa_atlas.connectors.openai_sdk",
    "python.callable": "gepa_atlas.connectors.python_callable",
    "toyworld": "gepa_atlas.connectors.toyworld",
}


def build_agent(
    spec: AgentSpec, *, build_model: Callable[[Any], ChatModel], base_dir: Path | str | None = None, where: str = "agents.student.params"
) -> Agent:
    """The agent of `spec`. `base_dir` is the configuration's directory (also taken from params.base_dir, else the current one).

    Raises ConfigError (unknown provider, wrong params, code that cannot be imported) or MissingExtra; makes no call.
    """
    params = dict(spec.params)
    given = params.pop("base_dir", None)
    start = Path(base_dir if base_dir is not None else given if given is not None else ".").absolute()
    return _builder(spec.provider)(params, Surroundings(build_model, start, where))


def providers() -> list[str]:
    """Names of every provider that can be asked for, built in or from other packages."""
    return plugins.providers(_BUILT_IN, GROUP)


def _builder(provider: str) -> Builder:
    build: Builder = plugins.builder(provider, _BUILT_IN, GROUP, where="agents", near_from=0.4)
    return build
