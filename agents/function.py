"""A Python function as an agent: it reads the order number out of a customer's message, with the embedded model.

gepa-atlas calls `answer` with those of prompt, question, context, guidance, demos and settings that it declares. Paired with
configs/wrappers/python.yaml:

    gepa-atlas optimize configs/wrappers/python.yaml
"""

from __future__ import annotations

from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import ChatRequest
from gepa_atlas.types import Message

MODEL = build_model("local")  # cheap: the model itself is loaded at the first question
INSTRUCTIONS = "You read messages of customers and answer with the order number."


async def answer(question: str, guidance: str, demos: list[dict[str, str]]) -> str:
    """The model's answer. What was learned comes as `guidance` and `demos`; both are empty for the agent as it is."""
    turns = [Message("system", guidance or INSTRUCTIONS)]
    for demo in demos:
        turns += [Message("user", demo["question"]), Message("assistant", demo["answer"])]
    turns.append(Message("user", question))
    completion = await MODEL.complete(ChatRequest(messages=tuple(turns), max_tokens=24))
    return completion.text.strip()
