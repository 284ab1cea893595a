"""A LangGraph graph as an agent: one node that answers a chat with the embedded model. Needs the extra [langgraph].

Paired with docs/providers.md, langgraph: the chat comes in as `messages`, and the answer is the last of them.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import ChatRequest
from gepa_atlas.types import Message

MODEL = build_model("local")  # cheap: the model itself is loaded at the first question
ROLES: dict[str, Any] = {"system": "system", "human": "user", "ai": "assistant"}


async def answer(state: MessagesState) -> dict[str, Any]:
    turns = tuple(Message(ROLES[m.type], str(m.text)) for m in state["messages"])
    completion = await MODEL.complete(ChatRequest(messages=turns, max_tokens=24))
    return {"messages": [AIMessage(completion.text.strip())]}


def build() -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()
