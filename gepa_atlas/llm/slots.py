"""Reuse of computed prefixes without a trace of history in the answer. Pure: what to send to a slot, which job to take next.

The last bits of a logit depend on how many tokens were computed in one batch, so a cache that reuses "as much as matches"
answers by what was asked before. Here every prompt has one split, a function of the prompt alone: tokens[:split] (system
text and demonstrations) are computed in one batch from an empty slot, tokens[split:] in one batch on top of them. A slot is
brought back to exactly its prefix by a request for the prefix and a GUARD, a token with which no prompt goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

GUARD = 0  # <|endoftext|>: text is tokenised without special tokens, so it never stands in a prompt
SHORTEST_PREFIX = 16  # tokens; a shorter one is computed again faster than it is looked after
SCRATCH = 0  # the slot of prompts without a prefix, so that they never evict one
_LOOK_AHEAD = 16  # jobs a worker may pass over for one whose prefix it holds


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids and the length of the prefix that other prompts may share; 0 is none."""

    tokens: tuple[int, ...]
    split: int = 0

    @property
    def prefix(self) -> tuple[int, ...]:
        return self.tokens[: self.split]


@dataclass(frozen=True, slots=True)
class Step:
    """One request to the server: `reused` is how many tokens the slot must still hold for the answer to be canonical."""

    slot: int
    tokens: tuple[int, ...]
    reused: int


@dataclass
class Slots:
    """What each slot of one server holds: the tokens of its last prompt, of which the first `split` are canonical."""

    count: int  # slots of the server; one of them is SCRATCH
    held: OrderedDict[int, Prompt] = field(default_factory=OrderedDict)

    def plan(self, prompt: Prompt) -> list[Step]:
        """The requests that answer `prompt`, the last of which generates. Says nothing about success: see `done`, `forget`."""
        if prompt.split < SHORTEST_PREFIX:
            return [Step(SCRATCH, prompt.tokens, 0)]
        slot = self._holder(prompt.prefix)
        if slot is None:
            slot = self._oldest()
            return [Step(slot, (*prompt.prefix, GUARD), 0), Step(slot, prompt.tokens, prompt.split)]
        last = Step(slot, prompt.tokens, prompt.split)
        if shared(self.held[slot].tokens, prompt.tokens) == prompt.split:
            return [last]
        return [Step(slot, (*prompt.prefix, GUARD), prompt.split), last]

    def done(self, step: Step, prompt: Prompt) -> None:
        """The slot now holds `step.tokens` and, behind them, at most what was generated."""
        if step.slot != SCRATCH:
            self.held[step.slot] = Prompt(step.tokens, prompt.split)
            self.held.move_to_end(step.slot)

    def forget(self, slot: int) -> None:
        """What the slot holds is unknown: a call to it failed or was cancelled."""
        self.held.pop(slot, None)

    def _holder(self, prefix: tuple[int, ...]) -> int | None:
        return next((n for n, p in self.held.items() if p.prefix == prefix), None)

    def _oldest(self) -> int:
        free = [n for n in range(SCRATCH + 1, self.count) if n not in self.held]
        return free[0] if free else next(iter(self.held))


def shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))


def choose(waiting: Sequence[str], passed_over: int, mine: frozenset[str], others: frozenset[str]) -> int:
    """Index of the job a free worker takes, by the jobs' affinities, oldest first.

    A prefix it holds itself, else one that nobody holds, else the oldest. The oldest is never passed over for ever.
    """
    if passed_over < _LOOK_AHEAD:
        near = list(waiting[:_LOOK_AHEAD])
        for n, affinity in enumerate(near):
            if affinity in mine:
                return n
        for n, affinity in enumerate(near):
            if affinity not in others:
                return n
    return 0
