"""Graphs of LangGraph that the tests name by import path."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import ChatRequest
from gepa_atlas.types import Message

ROLES: dict[str, Any] = {"system": "system", "human": "user", "ai": "assistant"}
MODEL = build_model("local")


class Chat(TypedDict):
    messages: Annotated[list[Any], add_messages]


class Fields(TypedDict):
    question: str
    hint: str
    answer: str


def graph(node: Any, state: Any = Chat, **more: Any) -> Any:
    building: Any = StateGraph(state)
    building.add_node("work", node)
    building.add_edge(START, "work")
    building.add_edge("work", END)
    return building.compile(**more)


async def on_the_model(state: Chat) -> dict[str, Any]:
    turns = tuple(Message(ROLES[m.type], str(m.text)) for m in state["messages"])
    said = await MODEL.complete(ChatRequest(turns, max_tokens=16))
    usage: Any = {"input_tokens": said.usage.input_tokens, "output_tokens": said.usage.output_tokens, "total_tokens": said.usage.tokens}
    return {"messages": [AIMessage(said.text.strip(), usage_metadata=usage)]}


async def echo_node(state: Chat) -> dict[str, Any]:
    return {"messages": [AIMessage("\n".join(str(m.text) for m in state["messages"]))]}


def fields_node(state: Fields) -> dict[str, str]:
    return {"answer": f"{state['question']}|{state['hint']}"}


async def broken_node(state: Chat) -> dict[str, Any]:
    raise RuntimeError("the database\nis down")


async def hanging_node(state: Chat) -> dict[str, Any]:
    await asyncio.sleep(60)
    return {}


def forever() -> Any:
    building: Any = StateGraph(Chat)
    building.add_node("work", echo_node)
    building.add_edge(START, "work")
    building.add_edge("work", "work")
    return building.compile()


model = graph(on_the_model)
echo = graph(echo_node)
remembering = graph(echo_node, checkpointer=InMemorySaver())
fields = graph(fields_node, Fields)
broken = graph(broken_node)
hanging = graph(hanging_node)
