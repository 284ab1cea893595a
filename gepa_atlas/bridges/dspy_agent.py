"""`AgentModule`: any agent of ours, a service, a command, a function, as a DSPy program that dspy's optimizers can improve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy

from gepa_atlas.bridges.background import Background
from gepa_atlas.calls import Calls, MemoryTape
from gepa_atlas.connectors.loading import named
from gepa_atlas.connectors.registry import AgentSpec, build_agent
from gepa_atlas.errors import ConfigError
from gepa_atlas.lanes import Retry
from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import Agent
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Demo, Guidance, Question, Task

_LOOP = Background("agents of dspy programs")


class AgentModule(dspy.Module):  # type: ignore[misc]
    """A program of one predictor, `agent`, whose instructions and demonstrations reach the agent as guidance.

    agent: a function, the name of one, {"provider": ..., "params": ...}, or an Agent. signature: inputs and one output; `context` is
    passed as the agent's context, the other inputs are the question. instructions: the guidance to start from; none leaves the agent as it
    is. concurrency, retry: as in a configuration. The same request is made once and answered from memory afterwards, as dspy's own cache
    does; `config={"rollout_id": n}` asks again.
    """

    def __init__(
        self,
        agent: Callable[..., Any] | Mapping[str, Any] | Agent | str,
        signature: Any = "question -> answer",
        *,
        instructions: str = "",
        concurrency: int = 16,
        retry: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.agent = AgentPredict(_Door(_built(agent), concurrency, load(Retry, retry or {}, "retry")), signature, instructions)

    def forward(self, **inputs: Any) -> Any:
        return self.agent(**inputs)

    async def aforward(self, **inputs: Any) -> Any:
        return await self.agent.acall(**inputs)


class AgentPredict(dspy.Predict):  # type: ignore[misc]
    """A predictor that asks an agent where dspy.Predict asks a language model. Raises the agent's CallError when there is no answer."""

    def __init__(self, door: _Door, signature: Any, instructions: str) -> None:
        super().__init__(dspy.Signature(signature, instructions) if instructions else signature)
        if len(self.signature.output_fields) != 1:
            raise ConfigError(f"signature: an agent gives one text, so it has one output field, not {len(self.signature.output_fields)}")
        self.door = door
        self.unguided = "" if instructions else self.signature.instructions  # what dspy writes by itself says nothing to an agent

    def forward(self, **inputs: Any) -> Any:
        task, signature, given = self._task(inputs)
        return self._answered(_LOOP.run(self.door.run(task)), signature, given)

    async def aforward(self, **inputs: Any) -> Any:
        task, signature, given = self._task(inputs)
        return self._answered(await _LOOP.wait(self.door.run(task)), signature, given)

    def _task(self, inputs: dict[str, Any]) -> tuple[Task, Any, dict[str, Any]]:
        given = dict(inputs)
        signature, demos = given.pop("signature", self.signature), given.pop("demos", self.demos)
        config = {**self.config, **given.pop("config", {})}
        given.pop("lm", None)  # a program may be given one; the agent has its own
        missing = [name for name in signature.input_fields if name not in given]
        if missing:
            raise ConfigError(f"the agent was called without {', '.join(missing)}; its inputs are {', '.join(signature.input_fields)}")
        text = "" if signature.instructions == self.unguided else signature.instructions
        output = next(iter(signature.output_fields))
        shown = tuple(_demo(at, demo, signature, output) for at, demo in enumerate(demos) if output in demo)
        question, context = _asked(given, signature)
        return Task(Question("dspy", question, context), Guidance(text, shown), int(config.get("rollout_id") or 0)), signature, given

    def _answered(self, attempt: Attempt, signature: Any, given: dict[str, Any]) -> Any:
        output = next(iter(signature.output_fields))
        return self._forward_postprocess([{output: attempt.output}], signature, **given)


class _Door:
    """The agent behind retries and limits. Copies of a program share it."""

    def __init__(self, agent: Agent, concurrency: int, retry: Retry) -> None:
        self._student = Calls(MemoryTape(), concurrency=concurrency, retry=retry).agent(agent)

    async def run(self, task: Task) -> Attempt:
        return await self._student.run(task)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Door:
        return self


def _built(agent: Callable[..., Any] | Mapping[str, Any] | Agent | str) -> Agent:
    if isinstance(agent, Agent):
        return agent
    if isinstance(agent, Mapping):
        spec = load(AgentSpec, agent, "agent")
    else:
        reference = agent if isinstance(agent, str) else named(agent, "agent")
        spec = AgentSpec(provider="python.callable", params={"callable": reference})
    return build_agent(spec, build_model=lambda value: build_model(value, "agent.params.model"), base_dir=Path.cwd(), where="agent.params")


def _asked(given: Mapping[str, Any], signature: Any) -> tuple[str, str]:
    """Question and context: the one input as it is, or several by name."""
    names: Sequence[str] = [name for name in signature.input_fields if name != "context" and name in given]
    text = str(given[names[0]]) if len(names) == 1 else "\n".join(f"{name}: {given[name]}" for name in names)
    return text, str(given.get("context", "")) if "context" in signature.input_fields else ""


def _demo(at: int, demo: Mapping[str, Any], signature: Any, output: str) -> Demo:
    question, context = _asked(demo, signature)
    return Demo(f"demo {at}", question, str(demo[output]), context)


__all__ = ["AgentModule"]
