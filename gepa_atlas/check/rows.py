"""Rows that cost nothing: versions, keys, splits, texts. Each is green, or says what is wrong and how it is mended."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from gepa_atlas import __version__
from gepa_atlas.config import Loaded
from gepa_atlas.data import FEW_TEST_EXAMPLES
from gepa_atlas.loop import Experiment
from gepa_atlas.openai_server import BASE_URL_ENV
from gepa_atlas.ports import Advises, Agent
from gepa_atlas.wire import place

State = Literal["green", "yellow", "red"]

_PACKAGES = ("litellm", "openai", "openai-agents", "dspy", "transformers", "xllamacpp", "datasets", "mcp", "langgraph")
_MALICIOUS = {"litellm": ("1.82.7", "1.82.8")}
_REFERENCE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# The variable that litellm reads where no api_key_env is given.
_VENDOR_KEYS = {
    "openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY", "xai": "XAI_API_KEY",
    "groq": "GROQ_API_KEY", "mistral": "MISTRAL_API_KEY", "deepseek": "DEEPSEEK_API_KEY", "openrouter": "OPENROUTER_API_KEY",
    "together_ai": "TOGETHERAI_API_KEY", "cohere": "COHERE_API_KEY", "azure": "AZURE_API_KEY", "huggingface": "HUGGINGFACE_API_KEY",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at. yellow: it runs, and there is something to know; red: it cannot do what it is for."""

    name: str
    state: State
    said: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "state": self.state, "said": self.said, "fix": self.fix}


def static_rows(loaded: Loaded) -> list[Row]:
    """Of the configuration alone. Nothing is built and nothing is called."""
    return [versions(), *keys(loaded.resolved), *addresses(loaded.resolved)]


def versions() -> Row:
    found = {name: version for name in _PACKAGES if (version := _version(name))}
    said = ", ".join([f"Python {platform.python_version()}", f"gepa_atlas {__version__}", *(f"{n} {v}" for n, v in found.items())])
    for name, bad in _MALICIOUS.items():
        if found.get(name) in bad:
            fix = f"pip install '{name}>=1.92', and treat every key this machine held as stolen"
            return Row("versions", "red", f"{said}; {name} {found[name]} was a malicious release", fix)
    return Row("versions", "green", said)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def keys(tree: Any) -> list[Row]:
    """Names of the variables that hold keys, and whether they are set; never a value."""
    named = dict.fromkeys(_named_keys(tree))
    usual = [name for name in dict.fromkeys(_vendor_keys(tree)) if name not in named]
    missing = [name for name in named if not os.environ.get(name)]
    guessed = [name for name in usual if not os.environ.get(name)]
    fix = "export them, or put NAME=value lines into .env"
    if missing:
        return [Row("keys", "red", f"not set: {', '.join([*missing, *guessed])}", fix)]
    if guessed:
        return [Row("keys", "yellow", f"litellm usually reads {', '.join(guessed)}, not set", f"{fix}, unless it finds another way in")]
    found = [*named, *usual]
    return [Row("keys", "green", f"set: {', '.join(found)}" if found else "none is needed")]


def addresses(tree: Any) -> list[Row]:
    """Whether the environment says where models and agents of the OpenAI protocol are."""
    given, at = os.environ.get(BASE_URL_ENV), dict.fromkeys(_without_address(tree))
    return [Row("address", "green", f"{BASE_URL_ENV} is the base_url of {', '.join(at)}: {place(given)}")] if given and at else []


def _without_address(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        provider, params = node.get("provider"), node.get("params") or {}
        if isinstance(provider, str) and provider.startswith("openai.") and isinstance(params, dict) and "base_url" not in params:
            yield provider
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _without_address(inner)


def _named_keys(node: Any, under_headers: bool = False) -> Iterator[str]:
    if isinstance(node, str):
        yield from _REFERENCE.findall(node) if under_headers else ()
    elif isinstance(node, list):
        for inner in node:
            yield from _named_keys(inner, under_headers)
    elif isinstance(node, dict):
        for key, inner in node.items():
            if key == "api_key_env" and isinstance(inner, str):
                yield inner
            elif key == "headers_env" and isinstance(inner, dict):
                yield from (str(name) for name in inner.values())
            else:
                yield from _named_keys(inner, under_headers or key == "headers")


def _vendor_keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and _vendor(node) in _VENDOR_KEYS:
        yield _VENDOR_KEYS[_vendor(node)]
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _vendor_keys(inner)


def _vendor(node: dict[str, Any]) -> str:
    """The vendor of a litellm model that brings no key of its own."""
    provider, params = node.get("provider"), node.get("params") or {}
    if not isinstance(provider, str) or not isinstance(params, dict) or params.get("api_key_env") or params.get("api_base"):
        return ""
    name = provider if "/" in provider else params.get("model") if provider == "litellm" else None
    return name.partition("/")[0] if isinstance(name, str) and "/" in name else ""


def advice(agent: Agent) -> list[Row]:
    """What the agent itself has to say before a run, such as an API that is going away."""
    return [Row("agent", "yellow", said) for said in agent.advice()] if isinstance(agent, Advises) else []


def built_rows(loaded: Loaded, experiment: Experiment, known: tuple[str, ...]) -> list[Row]:
    """Of everything that the configuration builds: data, splits, texts, operators."""
    data, plan = experiment.dataset, experiment.plan
    rows = [Row("data", "green", f"{len(data.examples)} examples: {data.sizes()}"), _splits(experiment)]
    names = ", ".join(
        component.name + "".join(f" {{{placeholder}}}" for placeholder in component.placeholders) for component in experiment.components
    )
    rows.append(Row("texts", "green", f"protocol {experiment.protocol.name} evolves {names}; every placeholder is there"))
    rows.append(Row("operators", "green", ", ".join(experiment.proposers)))
    least = 2 * (plan.minibatch + 1) * (plan.student_calls + 1) + 3 * len(data.test)
    if plan.rollouts is not None and plan.rollouts < least:
        said = f"max_metric_calls is {plan.rollouts}: little is left for a search beside the seed and {len(data.test)} held-out examples"
        rows.append(Row("budget", "yellow", said, f"give at least {least}"))
    return [*rows, *(Row("note", "yellow", note) for note in known)]


def _splits(experiment: Experiment) -> Row:
    data, plan = experiment.dataset, experiment.plan
    if not data.test:
        return Row("splits", "yellow", "no test split: nothing can be claimed for unseen questions", "give data.split a share for test")
    if len(data.test) < FEW_TEST_EXAMPLES:
        fix = f"give {FEW_TEST_EXAMPLES} or more"
        return Row("splits", "yellow", f"only {len(data.test)} test examples: the interval of the gain will be wide", fix)
    if len(data.val) < plan.minibatch:
        return Row("splits", "yellow", f"{len(data.val)} val examples, and a child is tried on {plan.minibatch}", "lower minibatch")
    return Row("splits", "green", "three disjoint splits: train is reflected on, val selects, test reports")
