"""A tiny text world to drive the pure core without an edge: a prompt is a set of letters, each rule is a letter worth having."""

from __future__ import annotations

from collections import deque

from gepa_atlas.evolve.engine import Evolution, Plan
from gepa_atlas.evolve.portfolio import Operator
from gepa_atlas.evolve.rng import rng
from gepa_atlas.types import Attempt, Candidate, Decision, Draft, Example, Guidance, Lesson, Outcome, Proposal, Reward, SlotKind, Split

RULES = "abcdef"
OPERATORS = (Operator("edit"), Operator("reflect", 3))


def examples(split: Split, n: int) -> list[Example]:
    return [Example(f"{split}{i}", f"question {i}", ("yes",), split=split) for i in range(n)]


class Letters:
    """Chance of success = share of an example's two needed letters in the prompt; `noise` 0 makes it a threshold at both."""

    def __init__(self, seed: int = 0, noise: float = 0.0, fail: float = 0.0) -> None:
        self.seed, self.noise, self.fail = seed, noise, fail
        self.calls: set[str] = set()
        self.known: set[tuple[str, str, int]] = set()  # cells told, or measured in a slot under way
        self.again: list[tuple[str, str, int]] = []  # known cells that a measurement asked for

    def planned(self, proposal: Proposal) -> None:
        if proposal.kind is SlotKind.MEASURE:
            cells = {(proposal.parents[0].id, e, sample) for e, sample in proposal.gate}
            self.again += cells & self.known
            self.known |= cells

    def right(self, prompt: str, example: Example, sample: int) -> float | None:
        self.calls.add(f"{prompt}|{example.id}|{sample}")
        random = rng(self.seed, prompt, example.id, sample)
        if random.random() < self.fail:
            return None
        need = rng(self.seed, "need", example.id).choice(len(RULES), 2, replace=False)
        share = sum(RULES[k] in prompt for k in need) / 2
        p = 1.0 if share == 1 else 0.0
        return float(random.random() < (1 - self.noise) * p + self.noise * (0.1 + 0.8 * share))

    def lesson(self, candidate: Candidate, example: Example, sample: int) -> Lesson:
        sides = []
        for prompt, again in (("", 0), (candidate.text("guidance"), sample)):
            value = self.right(prompt, example, again)
            sides.append(
                (Attempt.failed("server_fault", "down"), Reward.none("server_fault", "down"))
                if value is None
                else (Attempt("yes" if value else "no"), Reward(value))
            )
        (first, before), (second, after) = sides
        requests = (f"|{example.id}|0", f"{candidate.text('guidance')}|{example.id}|{sample}")
        return Lesson(
            example, candidate.id, sample, "playbook", first, Guidance(candidate.text("guidance")), second, before, after, requests=requests
        )

    def draft(self, proposal: Proposal, seed: int) -> Draft:
        random = rng(seed, proposal.n, proposal.operator)
        text = proposal.parents[0].text("guidance")
        letter = RULES[int(random.integers(len(RULES)))]
        new = text.replace(letter, "") if letter in text and random.random() < 0.3 else text + letter
        child = proposal.parents[0].child(proposal.operator, texts={"guidance": "".join(sorted(set(new)))})
        return Draft(None, "no idea") if child.id == proposal.parents[0].id else Draft(child, f"put {letter}")


def drive(
    plan: Plan, world: Letters, sizes: tuple[int, int, int] = (10, 20, 20), *, shared: bool = False
) -> tuple[Evolution, list[Decision], list[int]]:
    """Run to the end; returns the search, its decisions, and the rollouts spent after each tell. shared: train is val as well."""
    splits: tuple[Split, ...] = ("train", "val", "test")
    sets = [examples(split, n) for split, n in zip(splits, sizes, strict=True)]
    if shared:
        sets[1] = sets[0]
    by_id = {e.id: e for s in sets for e in s}
    seed = Candidate.of({"guidance": ""})
    evolution = Evolution(plan, [seed], *[[e.id for e in s] for s in sets])
    window: deque[Proposal] = deque()
    spent = []
    while True:
        while evolution.asked - evolution.told < plan.width and (proposal := evolution.ask()) is not None:
            window.append(proposal)
            world.planned(proposal)
        if not window or evolution.phase.value == "done":
            return evolution, evolution.decisions, spent
        proposal = window.popleft()
        draft, who = None, proposal.parents
        lessons: list[Lesson] = []
        if proposal.kind is SlotKind.CHILD:
            lessons = [world.lesson(proposal.parents[0], by_id[e], 0) for e in proposal.read]
            draft = Draft(proposal.child) if proposal.child else world.draft(proposal, plan.seed)
            if draft.candidate and (reason := evolution.refuse(proposal, draft.candidate)):
                draft = Draft(None, reason)
            who = (draft.candidate,) if draft.candidate else ()
        lessons += [world.lesson(c, by_id[e], s) for c in who for e, s in proposal.gate]
        evolution.tell(proposal, Outcome(draft, tuple(lessons)))
        world.known |= {lesson.cell for lesson in lessons}
        spent.append(evolution.budget.spent)
