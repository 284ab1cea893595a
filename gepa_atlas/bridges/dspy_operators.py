"""Operators of a DSPy program beside reflection: demonstrations for its predictors, and edits of its instructions without a model."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from gepa_atlas.bridges.dspy_adapter import DEMOS, Demos, read_demos, verified, written_demos
from gepa_atlas.bridges.gepa_search import Change, Operator, Search
from gepa_atlas.evolve.rng import rng
from gepa_atlas.ports import Brief, Proposer
from gepa_atlas.types import Component, Demo, Proposal

_MAX_CHARS = 12_000  # of all demonstrations of a program
_KEEP = 0.5  # chance of each demonstration of the parent to stay
_VERIFIED = 0.6  # chance that a demonstration is drawn from verified runs, where there are some

T = TypeVar("T")


def demos_operator(program: Any, labelled: Demos, most: int, least_score: float) -> Operator:
    """Demonstrations of one predictor, drawn anew: some of the parent's, labelled train examples, and verified runs on train examples."""

    def propose(search: Search, proposal: Proposal) -> Change | str:
        random = rng(search.options.plan.seed, proposal.n, "demos")
        runs = [
            rollout for (_, example, _), rollout in sorted(search.rollouts.items()) if example.startswith("t") and rollout.batch is not None
        ]
        seen = verified(program, runs, least_score)
        usable = [name for name in labelled if labelled[name] or seen[name]]
        if not usable:
            return "there is nothing to demonstrate: no labelled train example fits a predictor, and no run has been verified"
        name = usable[int(random.integers(len(usable)))]
        shown = read_demos(search.texts[proposal.parents[0].id][DEMOS])
        now = [row for row in shown.get(name, []) if random.random() < _KEEP]
        size = int(random.integers(1, most + 1))
        for _ in range(4 * most):
            pool = seen[name] if seen[name] and (not labelled[name] or random.random() < _VERIFIED) else labelled[name]
            row = pool[int(random.integers(len(pool)))]
            if len(now) >= size:
                break
            if not any(_same_inputs(row, other) for other in now):
                now.append(row)
        text = written_demos(shown | {name: [now[int(i)] for i in random.permutation(len(now))][:most]})
        if len(text) > _MAX_CHARS:
            return f"the demonstrations would take {len(text)} characters; the limit is {_MAX_CHARS}"
        return {DEMOS: text}, f"{len(now[:most])} demonstrations for {name}"

    return propose


def _same_inputs(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    shared = [name for name in a if name in b]
    return bool(shared) and a[shared[0]] == b[shared[0]]


def house_operator(proposer: Proposer, components: Sequence[Component], pool: tuple[Demo, ...]) -> Operator:
    """One of our own operators (edit, ablate) on the instructions."""

    def propose(search: Search, proposal: Proposal) -> Change | str:
        parent = proposal.parents[0]
        random = rng(search.options.plan.seed, proposal.n, proposer.name)
        brief = Brief(proposal.parents, (), tuple(components), pool, random, proposal.rejected, proposal.mates)
        draft = _now(proposer.propose(brief))
        if draft.candidate is None:
            return draft.note
        changed = {n: t for n, t in draft.candidate.texts if parent.text(n) != t}
        return changed, draft.note

    return propose


def _now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits: these operators only think."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError("an operator waited; only those that need no model are used here")


def shown_examples(labelled: Mapping[str, Sequence[Mapping[str, Any]]], outputs: Mapping[str, Sequence[str]]) -> tuple[Demo, ...]:
    """Labelled examples of the last predictor as question and answer, for operators that read the form of the answers."""
    name = list(labelled)[-1]
    demos = []
    for at, row in enumerate(labelled[name]):
        answer = [str(row[f]) for f in outputs[name] if f in row]
        question = [str(v) for f, v in row.items() if f not in outputs[name]]
        demos.append(Demo(f"t{at}", "\n".join(question), "\n".join(answer)))
    return tuple(demos)
