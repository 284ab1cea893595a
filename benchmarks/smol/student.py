"""SmolLM2-135M as the student: greedy decoding of a plain prompt, exact check of the first line of the answer.

Answers are remembered by (prompt, tokens) in the process, since greedy answers do not change: time is saved, and every call is counted
all the same by the server.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from typing import Protocol

from benchmarks.demos import take
from gepa_atlas.ports import ChatModel, ChatRequest

_EDGES = re.compile(r"^[\s\"'`*.]+|[\s\"'`*.!]+$")


def prompt(instructions: str, question: str) -> str:
    """Instructions, then demonstrations, then the question, all in one form."""
    text, demos = take(instructions)
    shown = "".join(f"Input: {q}\nOutput: {a}\n\n" for q, a in demos)
    return f"{text}\n\n{shown}Input: {question}\nOutput:"


def right(output: str, accepted: Sequence[str]) -> bool:
    """Equal to an accepted answer, but for case, outer quotes and a final stop."""
    return _bare(output) in {_bare(a) for a in accepted}


def _bare(text: str) -> str:
    return _EDGES.sub("", " ".join(text.lower().split()))


class Answers(Protocol):
    """Greedy answers, in order: a function of each prompt."""

    def answers(self, prompts: Sequence[str], max_tokens: int) -> list[str]: ...


class Student:
    """Remembers every answer of this process, for all optimizers alike."""

    def __init__(self, model: Answers) -> None:
        self._model = model
        self._known: dict[tuple[str, int], str] = {}
        self.made = 0  # calls that reached the model

    def answers(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        new = [p for p in dict.fromkeys(prompts) if (p, max_tokens) not in self._known]
        for text, answer in zip(new, self._model.answers(new, max_tokens) if new else (), strict=True):
            self._known[text, max_tokens] = answer.strip()
        self.made += len(new)
        return [self._known[p, max_tokens] for p in prompts]


class Served:
    """The product's own servers of the embedded model, asked from a loop of its own so that synchronous optimizers can wait for them."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self._loop = asyncio.new_event_loop()
        self._room = asyncio.Semaphore(model.endpoint.max_concurrency)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def answers(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        return asyncio.run_coroutine_threadsafe(self._all(prompts, max_tokens), self._loop).result()

    async def _all(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        return list(await asyncio.gather(*(self._one(p, max_tokens) for p in prompts)))

    async def _one(self, text: str, max_tokens: int) -> str:
        async with self._room:
            return (await self._model.complete(ChatRequest(prompt=text, max_tokens=max_tokens, temperature=0.0, stop=("\n",)))).text

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
