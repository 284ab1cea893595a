"""An agent whose calls are made by worker processes or a cluster: for agents that keep a processor busy. Model calls stay where they are.

The worker builds the same agent from the same parameters, so what it answers, and what the run finds, is the same wherever it runs.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gepa_atlas.cluster import BackendConfig, lost_errors, opened, submitter
from gepa_atlas.config import Loaded
from gepa_atlas.errors import CallError, ConfigError, Unreachable
from gepa_atlas.parcels import Files, pack, strings, unpack
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.types import Attempt, Task, canonical

MOVED = ("python.callable", "cli.command")


@dataclass(frozen=True)
class Packed:
    """An agent as it travels: its parameters as JSON, variables not filled in, and the files they name."""

    provider: str
    params: str
    base: str
    files: Files


class Elsewhere:
    """The Agent port over a back-end. A lost worker is a transient error: the call is made again."""

    def __init__(self, agent: Agent, packed: Packed, config: BackendConfig) -> None:
        self._agent, self._packed, self._config = agent, packed, config

    @property
    def identity(self) -> str:
        return self._agent.identity

    @property
    def endpoint(self) -> Endpoint:
        """The agent's own, with at most as many calls at once as the configuration gives the back-end jobs."""
        own, jobs = self._agent.endpoint, self._config.jobs
        return own if jobs is None else replace(own, max_concurrency=min(own.max_concurrency, jobs))

    async def run(self, task: Task) -> Attempt:
        """Raises CallError."""
        submit = await asyncio.to_thread(_submitter, self._config)
        try:
            result = await asyncio.wrap_future(submit(answer, self._packed, task))
        except lost_errors(self._config.name) as error:
            raise Unreachable(f"the worker that ran {self._packed.provider} was lost ({type(error).__name__})") from None
        if isinstance(result, CallError):
            raise result
        return result  # type: ignore[no-any-return]


def elsewhere(agent: Agent, loaded: Loaded, config: BackendConfig) -> Elsewhere:
    """The student of a configuration, moved. Raises ConfigError where it is none that can be moved."""
    student = loaded.resolved["agents"]["student"]
    if student["provider"] not in MOVED:
        raise ConfigError(
            f"backend: {config.name} moves {' and '.join(MOVED)}, whose code needs processors; {student['provider']} waits for a server "
            "and stays here; remove backend"
        )
    params = student["params"]
    files = pack(strings(params), loaded.base_dir, str(params.get("cwd", "."))) if config.name != "loky" else ()
    return Elsewhere(agent, Packed(student["provider"], canonical(params), str(loaded.base_dir), files), config)


_opening = threading.Lock()  # the first calls of a resumed run come together


def _submitter(config: BackendConfig) -> Any:
    with _opening:
        return _open(config)


@functools.cache
def _open(config: BackendConfig) -> Any:
    """One back-end for the life of the process."""
    stack = ExitStack()
    cores = stack.enter_context(opened(config))
    atexit.register(stack.close)
    return submitter(config, config.jobs or cores)


# -- in the worker ----------------------------------------------------------------------------------------------------


def answer(packed: Packed, task: Task) -> Attempt | CallError:
    """One call of the agent."""
    try:
        return asyncio.run(_built(packed).run(task))
    except CallError as error:
        return error


@functools.cache
def _built(packed: Packed) -> Agent:
    import json
    import os

    from gepa_atlas.configfile import expand
    from gepa_atlas.connectors.registry import AgentSpec, build_agent

    place = tempfile.TemporaryDirectory(prefix="gepa_atlas_agent_")
    atexit.register(place.cleanup)
    base = unpack(packed.files, Path(place.name) / "files") if packed.files else Path(packed.base)
    params = expand(json.loads(packed.params), os.environ, "agents.student.params").tree
    spec = AgentSpec(provider=packed.provider, params=params)

    def no_model(value: Any) -> Any:
        raise ConfigError(f"agents.student.params.model: {packed.provider} has no model")

    return build_agent(spec, build_model=no_model, base_dir=base, where="agents.student.params")
