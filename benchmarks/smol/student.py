"""SmolLM2-135M as the student: greedy decoding of a plain prompt, exact check of the first line of the answer.

Answers are remembered by (prompt, tokens) in the process, since the model is deterministic: time is saved, and every call is counted
all the same by the server.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from benchmarks.demos import take
from gepa_atlas.ports import ChatModel, ChatRequest

T = TypeVar("T")
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


class Student:
    """Answers many questions at once on a loop of its own, so that synchronous optimizers can ask it."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self._known: dict[tuple[str, int], str] = {}
        self._loop = asyncio.new_event_loop()
        self._room = asyncio.Semaphore(model.endpoint.max_concurrency)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.made = 0  # calls that reached the model

    def answers(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        return self._wait(self._all(prompts, max_tokens))

    async def _all(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        await asyncio.gather(*(self._one(p, max_tokens) for p in dict.fromkeys(prompts) if (p, max_tokens) not in self._known))
        return [self._known[p, max_tokens] for p in prompts]

    async def _one(self, text: str, max_tokens: int) -> None:
        async with self._room:
            done = await self._model.complete(ChatRequest(prompt=text, max_tokens=max_tokens, temperature=0.0, stop=("\n",)))
        self.made += 1
        self._known[text, max_tokens] = done.text.strip()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
