"""What judges took, by judge, without passing a counter through every call: `with metering() as spent: ...`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gepa_atlas.types import Usage

_spent: ContextVar[dict[str, Usage] | None] = ContextVar("judge_usage", default=None)


@contextmanager
def metering() -> Iterator[dict[str, Usage]]:
    """Usage by judge name of everything judged inside, in this task and the tasks it starts."""
    spent: dict[str, Usage] = {}
    token = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(token)


def add(judge: str, usage: Usage) -> None:
    spent = _spent.get()
    if spent is not None:
        spent[judge] = spent.get(judge, Usage()) + usage
