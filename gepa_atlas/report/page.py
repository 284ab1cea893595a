"""What the page knows, as compact data: a head, candidates and lessons as streams of JSON lines, the heat map as bytes.

Sizes are bounded whatever the run: a stream takes rows in the order of their worth until its budget of compressed bytes is spent, and
what was left out is said in `cuts`. Every text is scrubbed and free of lone surrogates before it is packed.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gepa_atlas.report import diff
from gepa_atlas.report.evidence import Evidence, disagree, points
from gepa_atlas.report.ledger import Slot
from gepa_atlas.report.record import Member
from gepa_atlas.secrets import scrub
from gepa_atlas.types import Attempt, Demo, Example, Guidance, Lesson, Reward, SlotKind

BASELINE = -1  # the candidate number of the attempt without guidance
NOT_EVALUATED, FAILED, ZERO = 0, 1, 2  # codes of the heat map; ZERO + s is a score of s hundredths
_LESSONS, _CANDIDATES = 800_000, 400_000  # compressed bytes
_ROWS, _MANY, _EXAMPLES, _CELLS = 4_000, 1_000, 4_000, 1_200_000
_LONG, _SHORT = 4_000, 400  # characters of an answer or question, of a reason or rationale
PROMPT = 20_000  # characters of a text that is evolved
_ANCESTORS = 40  # of the winner, with a diff ready


@dataclass(frozen=True)
class Packed:
    """The page's data, each part compressed and in base64."""

    head: str
    candidates: str
    lessons: str
    heat: str
    cuts: tuple[str, ...]


def said(text: str, limit: int = _LONG) -> str:
    """A foreign text as it may stand on the page: no secret, no lone surrogate, no longer than `limit`."""
    clean = scrub(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return clean if len(clean) <= limit else f"{clean[:limit]}… [cut: {len(clean):,} characters]"


class Stream:
    """JSON lines, deflated while they come, within a budget of compressed bytes."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        self._parts: list[bytes] = []
        self._size = 0
        self._pending = 0
        self.full = False

    def add(self, row: Any) -> bool:
        """False when the budget was spent before this row."""
        if self.full:
            return False
        line = (json.dumps(row, ensure_ascii=True, separators=(",", ":"), allow_nan=False) + "\n").encode()
        self._take(self._deflate.compress(line))
        self._pending += len(line)
        if self._pending > min(65_536, self._budget - self._size):
            self._take(self._deflate.flush(zlib.Z_SYNC_FLUSH))
            self._pending = 0
            self.full = self._size >= self._budget
        return True

    def close(self) -> str:
        self._take(self._deflate.flush())
        return encoded(b"".join(self._parts))

    def _take(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)


def encoded(data: bytes) -> str:
    return base64.encodebytes(data).decode()


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(data) + deflate.flush()


def pack(evidence: Evidence) -> Packed:
    """The data of a run's page."""
    return _Packing(evidence).packed()


class _Packing:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        record = evidence.record
        self.members = _shown(record.population, {m.candidate.id for m in record.lineage(record.challenger)}, set(record.frontier))
        self.number = {member.candidate.id: i for i, member in enumerate(self.members)}
        self.examples, self.column = self._examples()
        self.reason = _SHORT if len(self.members) <= _MANY else _SHORT // 3  # characters of one
        self.cuts: list[str] = []
        self.heat_rows = 0

    def packed(self) -> Packed:
        candidates, lessons, heat = self._candidates(), self._lessons(), self._heat()
        head = json.dumps(self._head(), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        return Packed(encoded(deflated(head.encode())), candidates, lessons, heat, tuple(self.cuts))

    # -- what is in plain sight ---------------------------------------------------------------------------------------

    def _head(self) -> dict[str, Any]:
        evidence, record = self.evidence, self.evidence.record
        left = len(record.population) - len(self.members)
        if left:
            self.cuts.append(f"{left:,} of {len(record.population):,} candidates are not listed")
        children = [slot for slot in evidence.slots if slot.decision.kind is SlotKind.CHILD]
        made = {slot.candidate.id: slot.n for slot in reversed(children) if slot.candidate is not None}
        refusals = [self._refusal(slot) for slot in children if slot.candidate is None or made[slot.candidate.id] != slot.n]
        if len(refusals) > _ROWS:
            self.cuts.append(f"{len(refusals) - _ROWS:,} of {len(refusals):,} proposals that came to nothing are not listed")
        return {
            "seed": self.number[evidence.seed_id],
            "challenger": self.number[evidence.challenger_id],
            "candidates": self._rows(),
            "refusals": refusals[:_ROWS],
            "examples": self._example_rows(),
            "course": [
                [s.rollouts, round(s.mean, 4), round(1.96 * s.var**0.5, 4), self.number.get(s.best_id, BASELINE)] for s in evidence.course
            ],
            "diffs": self._diffs(),
            "heat": [self.heat_rows, len(self.examples)],
        }

    def _rows(self) -> list[dict[str, Any]]:
        slots = {slot.decision.candidate_id: slot for slot in reversed(self.evidence.slots) if slot.decision.kind is SlotKind.CHILD}
        figures = {p.candidate: p for p in points(self.evidence)}
        front = set(self.evidence.record.frontier)
        rows = []
        for member in self.members:
            candidate, card, slot = member.candidate, member.card, slots.get(member.candidate.id)
            point = figures.get(candidate.id)
            row: dict[str, Any] = {
                "id": candidate.id,
                "op": said(candidate.origin, 60),
                "parents": [self.number[p] for p in candidate.parents if p in self.number],
                "size": candidate.size(),
                "note": said(member.note, self.reason),
                "status": slot.decision.status.value if slot else "seed",
                "reason": said(slot.decision.reason, self.reason) if slot else "the prompt the search started from",
                "slot": slot.n if slot else None,
                "front": candidate.id in front,
            }
            if card is not None and card.delta is not None:
                row |= {"gain": _r(card.delta), "low": _r(card.delta_low), "high": _r(card.delta_high), "after": _r(card.after)}
                row |= {"harm": _r(card.harm_rate), "n": card.scored, "planned": card.planned}
            if point is not None:
                row |= {"tokens": _r(point.tokens, 1), "dollars": _r(point.dollars, 8), "pareto": point.front}
            rows.append(row)
        return rows

    def _refusal(self, slot: Slot) -> dict[str, Any]:
        parent = self.number.get(slot.parents[0]) if slot.parents else None
        return {"slot": slot.n, "op": said(slot.decision.operator, 60), "parent": parent, "reason": said(slot.decision.reason, self.reason)}

    def _examples(self) -> tuple[list[Example], dict[str, int]]:
        """Examples with a lesson: held-out ones first, because those are what is claimed."""
        seen = {lesson.example.id: lesson.example for lesson in self.evidence.lessons}
        order = {"test": 0, "val": 1, "train": 2}
        examples = sorted(seen.values(), key=lambda e: (order[e.split], e.id))[:_EXAMPLES]
        return examples, {example.id: j for j, example in enumerate(examples)}

    def _example_rows(self) -> list[dict[str, Any]]:
        """One row an example: what it got without guidance, with the seed prompt and with the challenger, and how judges took it."""
        rows: list[dict[str, Any]] = [
            {"id": said(e.id, 120), "split": e.split, "q": said(e.question, 160), "flags": []} for e in self.examples
        ]
        flags: list[set[str]] = [set() for _ in rows]
        for lesson in self.evidence.lessons:
            j = self.column.get(lesson.example.id)
            if j is None:
                continue
            row = rows[j]
            row["base"] = _r(lesson.before.value)
            if lesson.candidate_id == self.evidence.seed_id and lesson.sample == 0:
                row["seed"] = _r(lesson.after.value)
            if lesson.candidate_id == self.evidence.challenger_id and lesson.sample == 0:
                row["won"] = _r(lesson.after.value)
                delta = lesson.delta
                flags[j] |= {"failed"} if delta is None else {"harmed"} if delta < 0 else {"fixed"} if delta > 0 else set()
                if disagree(lesson.after) or disagree(lesson.before):
                    flags[j].add("disagreeing")
        for row, marks in zip(rows, flags, strict=True):
            if row.get("won") is not None and row.get("seed") is not None and row["won"] < row["seed"]:
                marks.add("below seed")
            row["flags"] = sorted(marks)
        if len(self.column) < len({lesson.example.id for lesson in self.evidence.lessons}):
            self.cuts.append(f"only the first {_EXAMPLES:,} examples are listed")
        return rows

    def _diffs(self) -> dict[str, dict[str, Any]]:
        """From each ancestor to the challenger, by component; the seed is one wherever it stands."""
        record = self.evidence.record
        ancestors = [m.candidate for m in record.lineage(record.challenger)][1 : _ANCESTORS + 1]
        if record.seed.id not in {a.id for a in ancestors} and record.seed.id != record.challenger.id:
            ancestors.append(record.seed)
        after = {name: said(text, PROMPT) for name, text in record.challenger.texts}
        return {
            str(self.number[a.id]): {name: diff.edits(said(dict(a.texts).get(name, ""), PROMPT), text) for name, text in after.items()}
            for a in ancestors
        }

    # -- candidates ---------------------------------------------------------------------------------------------------

    def _candidates(self) -> str:
        """Texts as edits of the first parent's, parents first; demonstrations once each."""
        stream, done, demos = Stream(_CANDIDATES), set[int](), dict[Demo, int]()
        record = self.evidence.record
        first = [self.number[m.candidate.id] for m in record.lineage(record.challenger)]
        first += [i for i, member in enumerate(self.members) if member.candidate.id in set(record.frontier)]
        for i in (*first, *range(len(self.members))):
            for k in self._unwritten(i, done):
                for demo in self.members[k].candidate.demos:
                    if demo not in demos:
                        demos[demo] = len(demos)
                        stream.add({"demo": demos[demo], "q": said(demo.question, 1_000), "a": said(demo.answer, 1_000)})
                if not stream.add(self._body(k, demos)):
                    break
                done.add(k)
        if len(done) < len(self.members):
            left = len(self.members) - len(done)
            self.cuts.append(f"the texts of {left:,} candidates are not on this page (`gepa-atlas why RUN CANDIDATE` shows each)")
        return stream.close()

    def _unwritten(self, i: int, done: set[int]) -> list[int]:
        """The candidate behind its ancestors along first parents, as far as they are not written yet."""
        chain: list[int] = []
        step: int | None = i
        while step is not None and step not in done and step not in chain:
            chain.append(step)
            step = self._base(step)
        return chain[::-1]

    def _base(self, i: int) -> int | None:
        parents = self.members[i].candidate.parents
        return self.number.get(parents[0]) if parents else None

    def _body(self, i: int, demos: dict[Demo, int]) -> dict[str, Any]:
        candidate, base = self.members[i].candidate, self._base(i)
        before = {name: said(text, PROMPT) for name, text in self.members[base].candidate.texts} if base is not None else {}
        texts = {
            name: diff.edits(before.get(name, ""), now) for name, text in candidate.texts if (now := said(text, PROMPT)) != before.get(name)
        }
        row: dict[str, Any] = {"i": i, "base": base, "texts": texts}
        if candidate.demos:
            row["demos"] = [demos[d] for d in candidate.demos]
        if candidate.settings:
            row["settings"] = {said(k, 60): said(str(v), 200) for k, v in candidate.settings}
        return row

    # -- lessons ------------------------------------------------------------------------------------------------------

    def _lessons(self) -> str:
        """Each example once, its baseline once, then lessons: of challenger and seed first, then of the front, then the others."""
        stream = Stream(_LESSONS)
        front = set(self.evidence.record.frontier)
        ours = {self.evidence.challenger_id, self.evidence.seed_id}
        rank = {True: 0, False: 2}
        known = [lesson for lesson in self.evidence.lessons if lesson.example.id in self.column and lesson.candidate_id in self.number]
        ordered = sorted(known, key=lambda x: 1 if x.candidate_id in front and x.candidate_id not in ours else rank[x.candidate_id in ours])
        shown: set[str] = set()
        written = 0
        for row in self._lesson_rows(ordered, shown):
            if not stream.add(row):
                break
            written += "e" in row and row["c"] != BASELINE
        total = len({lesson.cell for lesson in known})
        if written < total:
            self.cuts.append(f"the texts of {total - written:,} of {total:,} lessons are not on this page; traces.jsonl has every one")
        return stream.close()

    def _lesson_rows(self, lessons: Iterable[Lesson], shown: set[str]) -> Iterator[dict[str, Any]]:
        cells: set[tuple[str, str, int]] = set()
        for lesson in lessons:
            if lesson.cell in cells:
                continue
            cells.add(lesson.cell)
            j = self.column[lesson.example.id]
            if lesson.example.id not in shown:
                shown.add(lesson.example.id)
                yield _question(j, lesson.example)
                yield _attempt(j, BASELINE, 0, lesson.baseline, lesson.before)
            own = dict(self.members[self.number[lesson.candidate_id]].candidate.texts)
            row = _attempt(j, self.number[lesson.candidate_id], lesson.sample, lesson.second, lesson.after)
            yield row | _guidance(lesson.guidance, own.get("guidance"), lesson.support)

    # -- the heat map -------------------------------------------------------------------------------------------------

    def _heat(self) -> str:
        """One byte a cell, candidates x examples, the attempt without guidance last: see the codes above."""
        rows, columns = len(self.members) + 1, len(self.examples)
        if rows * columns > _CELLS:
            rows = max(2, _CELLS // columns)
            self.cuts.append(f"the heat map has the first {rows - 1:,} of {len(self.members):,} candidates")
        total = np.zeros((rows, columns), dtype=np.float64)
        count = np.zeros((rows, columns), dtype=np.int32)
        failed = np.zeros((rows, columns), dtype=bool)
        for lesson in self.evidence.lessons:
            i, j = self.number.get(lesson.candidate_id), self.column.get(lesson.example.id)
            if i is None or j is None:
                continue
            for at, value in ((i, lesson.after.value), (rows - 1, lesson.before.value)):
                if at >= rows or (at == rows - 1 and at == i):
                    continue
                if value is None:
                    failed[at, j] = True
                else:
                    total[at, j] += value
                    count[at, j] += 1
        scores = np.round(100 * total / np.maximum(count, 1)).astype(np.uint8) + ZERO
        cells = np.where(count > 0, scores, np.where(failed, FAILED, NOT_EVALUATED)).astype(np.uint8)
        self.heat_rows = rows
        return encoded(deflated(cells.tobytes()))


def _shown(population: Sequence[Member], lineage: set[str], front: set[str]) -> list[Member]:
    """Everybody, or of a very large population the winner's line, the front, the seed, and the first others; in order of arrival."""
    if len(population) <= _ROWS:
        return list(population)
    needed = {m.candidate.id for m in population if m.candidate.id in lineage | front} | {population[0].candidate.id}
    room = _ROWS - len(needed)
    kept = []
    for member in population:
        must = member.candidate.id in needed
        if must or room > 0:
            kept.append(member)
            room -= not must
    return kept


def _question(j: int, example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {"x": j, "q": said(example.question), "gold": [said(a, 1_000) for a in example.answers[:5]]}
    return row | ({"context": said(example.context)} if example.context else {})


def _attempt(j: int, candidate: int, sample: int, attempt: Attempt, reward: Reward) -> dict[str, Any]:
    row: dict[str, Any] = {"e": j, "c": candidate, "v": _r(reward.value)}
    if sample:
        row["s"] = sample
    if attempt.output is not None:
        row["o"] = said(attempt.output)
    failure = attempt.error or reward.missing
    if failure is not None:
        row["why"] = said(f"{failure.kind}: {failure.reason}", _SHORT)
    row["p"] = [
        [said(p.judge, 60), _r(p.value), said(p.rationale or (p.missing.reason if p.missing else ""), _SHORT), _r(p.uncertainty)]
        for p in reward.parts
    ]
    if attempt.usage.tokens:
        row["t"] = attempt.usage.tokens
    return row


def _guidance(guidance: Guidance, own: str | None, support: str) -> dict[str, Any]:
    """What the teacher wrote for this example; nothing where it is the candidate's own text."""
    row: dict[str, Any] = {"g": said(guidance.text)} if guidance.text and guidance.text != own else {}
    return row | ({"support": support} if support else {})


def _r(value: float | None, places: int = 4) -> float | None:
    return None if value is None else round(value, places) + 0.0
