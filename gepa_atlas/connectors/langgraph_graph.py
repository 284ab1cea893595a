"""The `langgraph` provider: a compiled LangGraph graph, run in this process; each run in a thread of its own at the checkpointer."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from gepa_atlas.connectors.answers import Clock, FieldPath, OpaqueParams, attempt, deadline, field, plain
from gepa_atlas.connectors.loading import load_made
from gepa_atlas.connectors.placement import Where, no_place_for
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.connectors.templates import check_reach, demos_apart, filled, lists_of, strings_in, values_of
from gepa_atlas.errors import AgentCrashed, CallError, MissingExtra
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Json, Task, Usage, digest

_VERSION = 1


class GraphParams(OpaqueParams):
    """`graph` names a compiled graph, or a function that makes one. `input` is the state it starts with, with the placeholders of a
    request template; `response_field` is where the answer is in the state it ends with."""

    graph: str
    input: dict[str, Any] = Field(default_factory=lambda: {"messages": "{messages}"})
    guidance: Where = "system"
    system_prompt: str = ""  # the first of {messages} while there is no guidance to replace it
    response_field: FieldPath = "messages.-1.content"
    recursion_limit: int = Field(25, ge=1)
    configurable: dict[str, Any] = Field(default_factory=dict)  # of the graph, beside the thread's id

    @model_validator(mode="after")
    def _reaches_the_agent(self) -> Self:
        check_reach(strings_in(self.input), self.guidance, "input")
        return self


class GraphAgent:
    def __init__(self, params: GraphParams, base_dir: Path, where: str) -> None:
        from langgraph.pregel import Pregel

        self._params = params
        self._graph, source = load_made(params.graph, Pregel, base_dir, f"{where}.graph")
        self._who = f"the graph {params.graph}"
        self._demos_apart = demos_apart(strings_in(params.input))
        self._identity = "langgraph:" + digest({"version": _VERSION, "source": source, "params": params.answering()}, 16)
        self._endpoint = params.endpoint_at(f"langgraph:{params.graph}")

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def preview(self, task: Task) -> dict[str, Any]:
        return {"graph": self._params.graph, "input": self._input(task), "recursion_limit": self._params.recursion_limit}

    async def run(self, task: Task) -> Attempt:
        """Raises CallError. A node that blocks its thread without end outlives its deadline, and keeps the program from ending."""
        from langgraph.errors import GraphRecursionError

        p = self._params
        clock = Clock()
        given = self._input(task)
        config: Any = {"recursion_limit": p.recursion_limit, "configurable": p.configurable | {"thread_id": uuid.uuid4().hex}}
        async with deadline(p.timeout, self._who):
            try:
                state = await self._graph.ainvoke(given, config=config)
            except GraphRecursionError:
                raise AgentCrashed(f"{self._who} did not come to an end within {p.recursion_limit} steps (recursion_limit)") from None
            except CallError:
                raise
            except Exception as error:  # user code
                raise AgentCrashed(f"{self._who} raised {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
        shown, counted = _shown(state), _counted(state)
        usage = clock.usage(p)
        if counted is not None:
            usage = Usage(counted[0], counted[1], usage.dollars, usage.seconds, usage.calls)
        return attempt(field(shown, p.response_field, self._who), usage, self._who, p.max_bytes)

    def _input(self, task: Task) -> Json:
        p = self._params
        if refused := no_place_for(dict(task.guidance.settings), (), self._who):
            raise refused
        made: Json = filled(p.input, values_of(task, p, demos_apart=self._demos_apart), lists_of(task, p, system=p.system_prompt))
        return made


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    if importlib.util.find_spec("langgraph") is None:
        raise MissingExtra("provider 'langgraph'", "langgraph")
    return GraphAgent(load(GraphParams, params, surroundings.where), surroundings.base_dir, surroundings.where)


def _shown(value: Any) -> Any:
    """A state as JSON: messages become {type, content, ...}, their content the text of all its blocks."""
    from langchain_core.messages import BaseMessage

    if isinstance(value, BaseMessage):
        return {"type": value.type, "content": str(value.text), "name": value.name, "id": value.id}
    if isinstance(value, BaseModel):
        return {name: _shown(part) for name, part in dict(value).items()}
    if isinstance(value, Mapping):
        return {str(name): _shown(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(part) for part in value]
    return plain(value)


def _counted(state: Any) -> tuple[int, int] | None:
    """Tokens that the messages of a final state report; None where none does."""
    from langchain_core.messages import AIMessage

    messages = state.get("messages", ()) if isinstance(state, Mapping) else ()
    told = [m.usage_metadata for m in messages if isinstance(m, AIMessage) and m.usage_metadata is not None]
    if not told:
        return None
    return sum(usage["input_tokens"] for usage in told), sum(usage["output_tokens"] for usage in told)
