"""gepa_atlas as an optimizer of the benchmark: its pure engine and its own operators, with the server as the edge.

No SQLite and no event loop: the simulated ports answer at once, so a coroutine is driven to its end in one step. A lesson's value is
the judged score of the second attempt; there is no baseline to buy, for every peer is scored on the prompt alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from benchmarks import demos
from benchmarks.server import BudgetExhausted, EvalServer, Rollout
from gepa_atlas.evolve.engine import Evolution, Plan
from gepa_atlas.evolve.portfolio import Operator
from gepa_atlas.evolve.rng import rng
from gepa_atlas.ports import Brief, ChatRequest, Completion, Endpoint
from gepa_atlas.propose.registry import build_proposers
from gepa_atlas.types import (
    Attempt,
    Candidate,
    Component,
    Demo,
    Draft,
    Example,
    Guidance,
    Lesson,
    Outcome,
    Proposal,
    Reward,
    SlotKind,
    digest,
)  # fmt: skip

T = TypeVar("T")
READS = {"reflect": 9, "diagnose": 12, "revise": 6}  # as gepa_atlas.build has it
_EMPTY = Attempt("")
_ZERO = Reward(0.0)


@dataclass(frozen=True)
class Settings:
    """What is turned of the engine; the same for every family, noise and budget."""

    operators: tuple[str, ...] = ("reflect", "diagnose", "ablate")
    width: int = 4
    minibatch: int = 6
    retest: int = 8
    retest_share: float = 0.2


class _Reflection:
    """The server's reflector as a ChatModel."""

    identity = "benchmark reflector"
    endpoint = Endpoint("benchmark")

    def __init__(self, server: EvalServer) -> None:
        self._server = server

    async def complete(self, request: ChatRequest) -> Completion:
        text = request.prompt if request.prompt is not None else "\n\n".join(m.content for m in request.messages)
        return Completion(self._server.reflect(text))


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError("a benchmark port waited; it must answer at once")


class Edge:
    """What loop.py is to a real run: makes children, teaches cells, counts nothing itself."""

    def __init__(self, server: EvalServer, settings: Settings, seed: int) -> None:
        self.server, self.settings = server, settings
        self.proposers = build_proposers(settings.operators, model=_Reflection(server))
        self.components = tuple(Component(name) for name in server.components)
        examples = [Example(i, server.question(i), _golds(server, i), split="train") for i in server.train_ids]
        examples += [Example(i, server.question(i), _golds(server, i), split="val") for i in server.val_ids]
        self.examples = {x.id: x for x in examples}
        self.pool = tuple(Demo.of(x) for x in examples if x.split == "train" and x.answers)
        self.seed = Candidate.of(server.seed)
        self.plan = Plan(
            seed=seed,
            width=settings.width,
            rollouts=server.budget,
            operators=tuple(Operator(name, READS.get(name, 0)) for name in settings.operators),
            minibatch=settings.minibatch,
            retest=settings.retest,
            retest_share=settings.retest_share,
        )
        self.evolution = Evolution(
            self.plan,
            (self.seed,),
            server.train_ids,
            server.val_ids,
            (),
            gain=lambda lesson: lesson.after.value,
            questions={x.id: x.question for x in examples},
        )
        self.lessons: dict[tuple[str, str, int], Lesson] = {}

    def run(self) -> dict[str, str]:
        evolution, window = self.evolution, deque[tuple[Proposal, Outcome]]()
        self.server.watch(lambda: self.texts(evolution.best().candidate))
        try:
            while True:
                while evolution.asked - evolution.told < self.plan.width and (proposal := evolution.ask()) is not None:
                    window.append((proposal, self.play(proposal)))
                if not window:
                    break
                evolution.tell(*window.popleft())
        except BudgetExhausted:
            pass
        return self.texts(evolution.winner().candidate)

    def play(self, proposal: Proposal) -> Outcome:
        if proposal.kind is not SlotKind.CHILD:
            return Outcome(None, self.teach(proposal.parents, proposal.gate))
        read = self.teach(proposal.parents[:1], [(e, 0) for e in proposal.read])
        draft = self.draft(proposal, read)
        if draft.candidate is None:
            return Outcome(draft, read)
        return Outcome(draft, read + self.teach((draft.candidate,), proposal.gate))

    def draft(self, proposal: Proposal, read: tuple[Lesson, ...]) -> Draft:
        random = rng(self.plan.seed, proposal.n, proposal.operator)
        if proposal.child is not None:
            refused = self.evolution.refuse(proposal, proposal.child)
            return Draft(None, refused) if refused else Draft(proposal.child)
        brief = Brief(proposal.parents, read, self.components, self.pool, random, proposal.rejected, proposal.mates)
        draft = _now(self.proposers[proposal.operator].propose(brief))
        if draft.candidate is None:
            return draft
        refused = self.evolution.refuse(proposal, draft.candidate)
        return Draft(None, refused) if refused else draft

    def teach(self, candidates: Sequence[Candidate], cells: Sequence[tuple[str, int]]) -> tuple[Lesson, ...]:
        """Lessons of these cells; one that was taught before is remembered and, like every rollout of ours, paid once."""
        out = []
        for candidate in candidates:
            new = [cell for cell in cells if (candidate.id, *cell) not in self.lessons]
            for cell, rollout in zip(new, self.server.evaluate(self.texts(candidate), [e for e, _ in new]), strict=True):
                self.lessons[candidate.id, *cell] = self._lesson(candidate, cell, rollout)
            out += [self.lessons[candidate.id, *cell] for cell in cells]
        return tuple(out)

    def texts(self, candidate: Candidate) -> dict[str, str]:
        """What the server is given: the texts, with demonstrations as lines of the first component."""
        texts = dict(candidate.texts)
        if candidate.demos:
            first = self.server.components[0]
            texts[first] = "\n".join([texts[first], *(demos.line(d.question, d.answer) for d in candidate.demos)])
        return texts

    def _lesson(self, candidate: Candidate, cell: tuple[str, int], rollout: Rollout) -> Lesson:
        read = cell[0] in self.server.train_ids
        after = Reward(rollout.score, rationale=rollout.feedback if read else "")
        guidance = Guidance(next(iter(dict(candidate.texts).values())))
        request = digest([candidate.id, *cell], 16)
        return Lesson(
            self.examples[cell[0]], candidate.id, cell[1], "playbook", _EMPTY, guidance, Attempt(rollout.output), _ZERO, after,
            requests=(request,),
        )  # fmt: skip


def _golds(server: EvalServer, example: str) -> tuple[str, ...]:
    answer = server.answer(example)
    return (answer,) if answer else ()


def run(server: EvalServer, seed: int, settings: Settings) -> dict[str, str]:
    return Edge(server, settings, seed).run()


DEFAULT: Settings = Settings()
__all__ = ["DEFAULT", "Edge", "Settings", "run"]
