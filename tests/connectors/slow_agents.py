"""Agents in this process that take half a second, for the tests of throughput."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from langchain_core.messages import AIMessage

from tests.connectors.graphs import Chat, graph

asked: Counter[str] = Counter()


async def answer(prompt: str) -> str:
    asked[prompt] += 1
    await asyncio.sleep(0.5)
    return "4"


async def node(state: Chat) -> dict[str, Any]:
    return {"messages": [AIMessage(await answer(str(state["messages"][-1].text)))]}


slow = graph(node)
