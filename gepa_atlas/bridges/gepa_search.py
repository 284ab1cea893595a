"""The loop of a compat run: our search decides, a `GEPAAdapter` acts, a `Book` shows gepa's callbacks what happened.

One proposal at a time: adapters are plain functions, and what concurrency there is, is inside `evaluate`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gepa_atlas.bridges.gepa_book import Cell, Texts
from gepa_atlas.bridges.gepa_edge import Rollout, Runner, TextWriter, joined
from gepa_atlas.errors import ContractError, Outage
from gepa_atlas.evolve.engine import Evolution, Phase
from gepa_atlas.evolve.planner import Plan
from gepa_atlas.evolve.rng import rng
from gepa_atlas.types import (
    Attempt,
    Candidate,
    Decision,
    Draft,
    Example,
    Guidance,
    Lesson,
    Outcome,
    Proposal,
    Reward,
    SlotKind,
    Status,
    digest,
)

REFLECT, MERGE = "reflect", "merge"
_EMPTY, _ZERO = Attempt(""), Reward(0.0)
_BETTER = 0.6  # probability of being truly better than the seed below which the seed is the best candidate
Change = tuple[Texts, str]
Operator = Callable[["Search", Proposal], "Change | str"]


@dataclass(frozen=True)
class Options:
    """What is turned of a compat run, checked by `bridges.gepa`."""

    plan: Plan
    selector: Any  # gepa's ReflectionComponentSelector
    stoppers: Sequence[Callable[[Any], bool]]
    perfect_score: float | None
    skip_perfect_score: bool
    max_merges: int
    progress: bool
    log: Callable[[str], None]
    operators: Mapping[str, Operator] = field(default_factory=dict)  # beside reflect and merge


class Search:
    """`train` and `val` are gepa's loaders; `shared` says that they are one, so that a rollout serves both."""

    def __init__(self, seed: Texts, train: Any, val: Any, shared: bool, runner: Runner, writer: TextWriter, options: Options) -> None:
        self.train, self.val, self.runner, self.writer, self.options = train, val, runner, writer, options
        self.book = runner.book
        self.ids = {f"t{n}": i for n, i in enumerate(train.all_ids())}
        self.train_ids = list(self.ids)
        self.shared = shared
        self.ids |= {} if shared else {f"v{n}": i for n, i in enumerate(val.all_ids())}
        self.val_ids = self.train_ids if shared else [i for i in self.ids if i.startswith("v")]
        self.texts: dict[str, Texts] = {}  # as the adapter gets them, by candidate: components in the caller's order
        self.index: dict[str, int] = {}  # in gepa's population, by candidate
        self.rollouts: dict[tuple[str, str, int], Rollout] = {}
        self.scale = 1.0
        self.merges = 0
        self.merging: list[int] | None = None  # population indices of the merge under way
        self.said = ""  # of the last iteration, to the log
        first = Candidate.of(seed)
        self.texts[first.id] = dict(seed)
        self.evolution = Evolution(options.plan, (first,), self.train_ids, self.val_ids, (), gain=self._gain, whole=seed.keys())
        self.evolution.planner.baselines |= set(self.ids)  # there is no baseline to buy: scores are those of the prompt alone

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        evolution = self.evolution
        while not self._stopped() and (proposal := evolution.ask()) is not None:
            if proposal.kind is SlotKind.CHILD:
                self._child(proposal)
            elif proposal.kind is SlotKind.MEASURE:
                self._measure(proposal)
            else:
                evolution.tell(proposal, Outcome(None))
            if self.options.progress:
                self._show()
        if self.book.state is None:
            raise ContractError("the search ended before the seed was measured")

    def _stopped(self) -> bool:
        """gepa asks its stoppers once for each proposal; a measurement in between is no proposal."""
        book, limit = self.book, self.options.plan.rollouts
        if book.state is None:
            return False
        if limit is not None and book.calls >= limit:
            return True
        last = self.evolution.decisions[-1].kind if self.evolution.decisions else SlotKind.MEASURE
        if last is SlotKind.MEASURE and self.evolution.phase is Phase.SEARCH and len(self.evolution.decisions) > 1:
            return False
        return any([stopper(book.state) for stopper in self.options.stoppers])

    def _show(self) -> None:
        limit = self.options.plan.rollouts
        best = self.book.mean(self.best())
        of = "" if limit is None else f"/{limit}"
        end = "\n" if self.evolution.phase is Phase.DONE else ""
        sys.stderr.write(f"\rgepa_atlas: {self.book.calls}{of} rollouts, {len(self.index)} candidates, best {best:.3f}{end}")

    def best(self) -> int:
        """Who is best by what is believed of each, a mean over few examples counting for little; the seed while nobody seems better."""
        index = self.index.get(self.evolution.best().id, 0)
        return index if self.chance(index) >= _BETTER else 0

    def chance(self, index: int) -> float:
        """Probability that a candidate of the population is truly better than the seed; 0.5 for the seed itself."""
        entry = next(self.evolution.archive.get(i) for i, n in self.index.items() if n == index)
        return self.evolution.belief.chance(entry, self.evolution.archive.entries[0])

    # -- slots --------------------------------------------------------------------------------------------------------

    def _measure(self, proposal: Proposal) -> None:
        candidate = proposal.parents[0]
        fresh = self._teach(candidate, proposal.gate)
        if self.book.state is None:
            self._open(candidate, proposal)
        elif candidate.id in self.index:  # the final race may look again at one that was not kept
            self.book.extend(self.index[candidate.id], fresh)
        self.evolution.tell(proposal, Outcome(None, self._lessons(candidate, proposal.gate)))

    def _open(self, seed: Candidate, proposal: Proposal) -> None:
        rollouts = [self.rollouts[(seed.id, example, sample)] for example, sample in proposal.gate]
        measured = [rollout.cell for rollout in rollouts if rollout.cell is not None]
        if not measured:
            why = next((rollout.failure.reason for rollout in rollouts if rollout.failure), "nothing was measured")
            raise Outage(f"none of the seed's {len(rollouts)} validation examples has a score: {why}; mend it and start again")
        self.scale = max([1.0, self.options.perfect_score or 0.0, *(abs(cell.score) for cell in measured)])
        self.index[seed.id] = 0
        self.book.open(measured)
        self.options.log(f"seed: mean score {self.book.mean(0):.4f} on {len(measured)} of {len(self.val_ids)} validation examples")

    def _child(self, proposal: Proposal) -> None:
        self.book.begin_iteration(self.train)
        parent = proposal.parents[0]
        read = self._read(parent, proposal)
        draft = self._draft(parent, proposal, self._change(parent, proposal))
        lessons, cells = read, []
        if draft.candidate is not None:
            cells = self._teach(draft.candidate, proposal.gate)
            lessons = read + self._lessons(draft.candidate, proposal.gate)
        decision = self.evolution.tell(proposal, Outcome(draft, lessons))
        self._settle(proposal, draft, decision, cells)

    def _change(self, parent: Candidate, proposal: Proposal) -> Change | str:
        """What the operator proposes, or why it has nothing; as recorded when this slot was played before."""
        ledger, index = self.runner.ledger, self.index[parent.id]
        turns = self.book.state.named_predictor_id_to_update_next_for_program_candidate
        key = ledger.key("change", proposal.n, proposal.operator, self.texts[parent.id], list(proposal.read))
        if (recorded := ledger.recall(key)) is not None:
            turns[index], self.merges = recorded["turn"], recorded["merges"]
            return recorded["note"] if recorded["texts"] is None else (recorded["texts"], recorded["note"])
        operators: dict[str, Operator] = {REFLECT: _reflect, MERGE: _merge, **self.options.operators}
        change = operators[proposal.operator](self, proposal)
        texts, note = (None, change) if isinstance(change, str) else change
        ledger.record(key, "reflection", {"texts": texts, "note": note, "turn": turns[index], "merges": self.merges})
        return change

    def _draft(self, parent: Candidate, proposal: Proposal, change: Change | str) -> Draft:
        if isinstance(change, str):
            return Draft(None, change)
        texts, note = change
        others = tuple(mate.id for mate in proposal.mates[:1]) if proposal.operator == MERGE else ()
        child = parent.child(proposal.operator, texts=texts, also=others)
        self.texts.setdefault(child.id, self.texts[parent.id] | texts)
        refused = self.evolution.refuse(proposal, child)
        return Draft(None, refused) if refused else Draft(child, note)

    def _settle(self, proposal: Proposal, draft: Draft, decision: Decision, cells: list[Cell]) -> None:
        """Tell gepa's side what was decided."""
        book, child = self.book, draft.candidate
        parents = [self.index[p] for p in (child.parents if child else (proposal.parents[0].id,)) if p in self.index]
        accepted = child is not None and child.id not in self.index and decision.status is not Status.NOT_ADDED
        if accepted:
            assert child is not None
            self.index[child.id] = book.add(self.texts[child.id], parents, cells)
        else:
            new = sum(cell.score for cell in cells)
            old = sum(c.score for c in self._cells(proposal.parents[0], proposal.gate))
            book.notify("on_candidate_rejected", iteration=book.iteration, old_score=old, new_score=new, reason=decision.reason)
        if self.merging is not None:
            about: dict[str, Any] = {"iteration": book.iteration, "parent_ids": self.merging}
            if accepted:
                book.notify("on_merge_accepted", **about, new_candidate_idx=len(self.index) - 1)
            else:
                book.notify("on_merge_rejected", **about, reason=decision.reason)
            self.merging = None
        said = f"{proposal.operator}: {decision.status.value}: {decision.reason}"
        if child is not None or said != self.said:  # "nothing to reflect on" may hold for many iterations
            self.options.log(f"iteration {book.iteration}: {said}")
        self.said = said
        book.notify("on_iteration_end", iteration=book.iteration, state=book.state, proposal_accepted=accepted)
        if self.runner.ledger.directory is not None:
            book.notify("on_state_saved", iteration=book.iteration, run_dir=str(self.runner.ledger.directory))

    # -- rollouts -----------------------------------------------------------------------------------------------------

    def _read(self, parent: Candidate, proposal: Proposal) -> tuple[Lesson, ...]:
        """The parent on the train examples that are to be reflected on."""
        book, index = self.book, self.index[parent.id]
        ids = [self.ids[e] for e in proposal.read]
        book.notify(
            "on_candidate_selected",
            iteration=book.iteration,
            candidate_idx=index,
            candidate=dict(self.texts[parent.id]),
            score=book.mean(index),
        )
        if ids:
            book.notify("on_minibatch_sampled", iteration=book.iteration, minibatch_ids=ids, trainset_size=len(self.train_ids))
        cells = tuple((e, 0) for e in proposal.read)
        self._teach(parent, cells, train=True)
        return self._lessons(parent, cells)

    def _teach(self, candidate: Candidate, cells: Sequence[tuple[str, int]], *, train: bool = False) -> list[Cell]:
        """Run what has not been run yet, all examples of one repeat in one call; returns the new measured cells."""
        fresh: list[Cell] = []
        index = self.index.get(candidate.id, 0 if self.book.state is None else None)
        parents = [self.index[p] for p in candidate.parents if p in self.index]
        for sample in sorted({s for _, s in cells}):
            wanted = [e for e, s in cells if s == sample and (candidate.id, e, s) not in self.rollouts]
            loader = self.train if train or self.shared else self.val
            ids = [self.ids[e] for e in wanted]
            traces = train or self.shared
            done = self.runner.run(self.texts[candidate.id], loader, ids, traces=traces, sample=sample, index=index, parents=parents)
            self.rollouts |= {(candidate.id, e, sample): rollout for e, rollout in zip(wanted, done, strict=True)}
            fresh += [rollout.cell for rollout in done if rollout.cell is not None]
        return fresh

    def _cells(self, candidate: Candidate, cells: Sequence[tuple[str, int]]) -> list[Cell]:
        known = [self.rollouts.get((candidate.id, e, s)) for e, s in cells]
        return [rollout.cell for rollout in known if rollout is not None and rollout.cell is not None]

    def _lessons(self, candidate: Candidate, cells: Sequence[tuple[str, int]]) -> tuple[Lesson, ...]:
        return tuple(self._lesson(candidate, example, sample) for example, sample in cells)

    def _lesson(self, candidate: Candidate, example: str, sample: int) -> Lesson:
        rollout = self.rollouts[candidate.id, example, sample]
        if rollout.cell is not None:
            after = Reward(min(1.0, max(0.0, rollout.cell.score / self.scale)))
        else:
            assert rollout.failure is not None
            after = Reward.none(rollout.failure.kind, rollout.failure.reason)
        return Lesson(
            Example(example, example, split="train" if example.startswith("t") else "val"),
            candidate.id,
            sample,
            "gepa",
            _EMPTY,
            Guidance(),
            _EMPTY,
            _ZERO,
            after,
            requests=(digest([candidate.id, example, sample], 16),),
        )

    def _gain(self, lesson: Lesson) -> float | None:
        """The adapter's own score in units of the scale, which is fixed by the seed's first scores: it need not lie in [0, 1]."""
        cell = self.rollouts[lesson.cell].cell
        return None if cell is None else cell.score / self.scale

    def traced(self, proposal: Proposal) -> list[Rollout]:
        """The parent's scored rollouts that the proposer may read, as far as their traces are in memory."""
        known = [self.rollouts[proposal.parents[0].id, e, 0] for e in proposal.read]
        return [rollout for rollout in known if rollout.batch is not None and rollout.cell is not None]


# -- operators --------------------------------------------------------------------------------------------------------


def _reflect(search: Search, proposal: Proposal) -> Change | str:
    """gepa's reflective mutation: the adapter's dataset for the chosen components, and new texts for them."""
    parent = proposal.parents[0]
    rollouts, index = search.traced(proposal), search.index[parent.id]
    batch = joined(rollouts)
    skipped = _why_not_reflect(search, rollouts, batch)
    if skipped:
        about = {"iteration": search.book.iteration, "candidate_idx": index, "is_seed_candidate": index == 0}
        search.book.notify("on_evaluation_skipped", **about, reason=skipped, scores=batch.scores)
        return f"nothing to reflect on: {skipped}"
    return _rewrite(search, search.texts[parent.id], index, batch)


def _rewrite(search: Search, texts: Texts, index: int, batch: Any) -> Change | str:
    book, about = search.book, {"iteration": search.book.iteration}
    components = list(search.options.selector(book.state, batch.trajectories, batch.scores, index, dict(texts)))
    dataset = search.writer.dataset(texts, batch, components)
    if isinstance(dataset, str):
        return dataset
    book.notify("on_reflective_dataset_built", **about, candidate_idx=index, components=components, dataset=dataset)
    book.notify("on_proposal_start", **about, parent_candidate=dict(texts), components=components, reflective_dataset=dataset)
    written = search.writer.write(texts, dataset, components)
    if isinstance(written, str):
        return written
    new, prompts, answers = written
    book.notify("on_proposal_end", **about, new_instructions=new, prompts=prompts, raw_lm_outputs=answers)
    return new, f"reflected on {len(batch.scores)} examples: {', '.join(new)}"


def _why_not_reflect(search: Search, rollouts: Sequence[Rollout], batch: Any) -> str:
    if not rollouts:
        return "the parent fails at nothing it was tried on, or what is left of the budget does not pay for reading more"
    if not batch.trajectories:
        return "no_trajectories"
    perfect = search.options.perfect_score
    if search.options.skip_perfect_score and perfect is not None and all(s is not None and s >= perfect for s in batch.scores):
        return "all_scores_perfect"
    return ""


def _merge(search: Search, proposal: Proposal) -> Change | str:
    """Whole components of the parent and of another good candidate, where they differ; at least one of each."""
    if search.merges >= search.options.max_merges:
        return f"max_merge_invocations: {search.merges} merges have been tried"
    mine = search.texts[proposal.parents[0].id]
    mates = [mate for mate in proposal.mates if mate.id in search.texts]
    if not mates:
        return "there is no second candidate to merge with"
    theirs = search.texts[mates[0].id]
    differ = [name for name in mine if theirs[name] != mine[name]]
    if len(differ) < 2:
        return "a merge needs two candidates that differ in two components"
    random = rng(search.options.plan.seed, proposal.n, MERGE)
    count = int(random.integers(1, len(differ)))
    taken = {differ[int(i)] for i in random.permutation(len(differ))[:count]}
    search.merges += 1
    search.merging = [search.index[proposal.parents[0].id], search.index[mates[0].id]]
    merged = mine | {name: theirs[name] for name in taken}
    search.book.notify("on_merge_attempted", iteration=search.book.iteration, parent_ids=search.merging, merged_candidate=merged)
    return {name: theirs[name] for name in sorted(taken)}, f"merged with {mates[0].id}: {', '.join(sorted(taken))}"
