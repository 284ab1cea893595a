"""Why a candidate is what it is: what it changed, the failures that moved an operator to it, what it fixed and broke, what was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.report import diff
from gepa_atlas.report.ledger import Difference, Ledger, Slot, difference
from gepa_atlas.report.markdown import change_lines
from gepa_atlas.types import Candidate

_SHOWN = 8  # examples of a kind that are printed


@dataclass(frozen=True)
class Why:
    """`search` and `test` compare it with its first parent and with the seed, where both were measured."""

    candidate: Candidate
    parents: tuple[Candidate, ...]
    made: Slot | None  # None for a seed
    read: Mapping[str, tuple[float, float]]  # train example -> the parent's (before, after) that the operator could see
    against_parent: Difference
    against_seed: Difference
    test: Difference | None  # against the seed, held out
    history: tuple[Slot, ...]  # what was decided about it later
    words: Mapping[str, Mapping[str, str]]  # example -> question, and the parent's answer where traces.jsonl has it

    @property
    def failures(self) -> dict[str, tuple[float, float]]:
        """Of what was read, the examples that the parent did not get right, worst first."""
        missed = [(e, v) for e, v in self.read.items() if v[1] < 1.0]
        return dict(sorted(missed, key=lambda item: (item[1][1], item[0])))

    def to_json(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate.to_json(),
            "parents": [p.id for p in self.parents],
            "operator": self.candidate.origin,
            "slot": self.made.n if self.made else None,
            "note": self.made.note if self.made else "",
            "decision": self.made.decision.to_json() if self.made else None,
            "diff": _diffs(self),
            "motivated_by": [{"example": e, "before": b, "after": a, **self.words.get(e, {})} for e, (b, a) in self.failures.items()],
            "search_against_parent": self.against_parent.to_json(),
            "search_against_seed": self.against_seed.to_json(),
            "test_against_seed": self.test.to_json() if self.test else None,
            "later": [slot.decision.to_json() for slot in self.history],
        }


def why(ledger: Ledger, seeds: tuple[Candidate, ...], name: str, traces: Path | None = None) -> Why:
    """`name` is an id or the beginning of one; `seed`; or `tested`, who was sent to the held-out test. Raises ConfigError when it is not
    one candidate of this run."""
    known = {seed.id: seed for seed in seeds} | ledger.candidates()
    named = {"seed": seeds[0].id} | ({"tested": ledger.final.parents[-1]} if ledger.final else {})
    candidate = _find(known, named.get(name, name), ledger)
    made = ledger.maker(candidate.id)
    parents = tuple(known[p] for p in candidate.parents if p in known)
    seed = seeds[0].id
    ours = ledger.scores(candidate.id, final=False)
    parent = ledger.scores(parents[0].id, final=False) if parents else {}
    held_out = ledger.scores(candidate.id, final=True)
    read = ledger.read_scores(parents[0].id, made.read) if made and parents else {}
    later = tuple(s for s in ledger.slots if s.decision.candidate_id == candidate.id and s is not made)
    return Why(
        candidate,
        parents,
        made,
        read,
        difference(ours, parent),
        difference(ours, ledger.scores(seed, final=False)) if candidate.id != seed else difference({}, {}),
        difference(held_out, ledger.scores(seed, final=True)) if held_out and candidate.id != seed else None,
        later,
        _words(traces, set(read), parents[0].id) if traces is not None and parents else {},
    )


def lines(found: Why) -> Iterator[str]:
    """What a person reads."""
    candidate, made = found.candidate, found.made
    yield f"{candidate.id}, by {candidate.origin}" + (
        f" in slot {made.n}, from {_names(found.parents)}" if made else ": the prompt it started from"
    )
    if made is not None:
        yield f"Decided: {made.decision.status.value}: {made.decision.reason}"
        if made.note and made.note not in made.decision.reason:
            yield f"Idea: {made.note}"
    yield ""
    yield from _change(found)
    if made is not None and made.read:
        yield f"Motivated by {len(found.failures)} failures among {len(made.read)} train examples that the operator read:"
        for example, (_, after) in list(found.failures.items())[:_SHOWN]:
            yield f"  {example}: {after:.2f}" + _quote(found.words.get(example))
    elif made is not None:
        yield "Motivated by no lesson: this operator reads texts and train data only"
    if made is None and found.test is None and not found.against_seed.pairs:
        yield "The others are compared with it, so it is compared with nothing itself"
    else:
        yield from _compared(found)
    for slot in found.history:
        yield f"Slot {slot.n} ({slot.decision.operator}): {slot.decision.reason}"


def _compared(found: Why) -> Iterator[str]:
    yield "On the search (select) split, which chose it:"
    if found.parents:
        yield f"  against its parent: {found.against_parent.text()}"
        yield from _examples(found.against_parent)
    if found.against_seed.pairs:
        yield f"  against the seed: {found.against_seed.text()}"
    yield "On the held-out test: " + ("it was not sent there" if found.test is None else f"{found.test.text()} against the seed")
    if found.test is not None:
        yield from _examples(found.test)


def _find(known: Mapping[str, Candidate], name: str, ledger: Ledger) -> Candidate:
    matches = [candidate for identity, candidate in known.items() if name and identity.startswith(name)]
    if len(matches) != 1:
        count = "no candidate" if not matches else f"{len(matches)} candidates"
        raise ConfigError(
            f"{name!r} is the beginning of {count} of {ledger.directory}; give more of an id, as the report and `optimized_prompts.json` "
            f"have them (this run knows {len(known)}), or `seed`, or `tested` when there was a held-out test"
        )
    return matches[0]


def _change(found: Why) -> Iterator[str]:
    base = found.parents[0] if found.parents else None
    before = dict(base.texts) if base else {}
    for name, text in found.candidate.texts:
        if base is None:
            yield f"{name}:\n{text}"
        elif before.get(name) != text:
            yield f"{name}, [-dropped-] and {{+new+}}:\n{change_lines(before.get(name, ''), text)}"
    old = base.demos if base else ()
    yield from (f"demonstration {{+{d.question} -> {d.answer}+}}" for d in found.candidate.demos if d not in old)
    yield from (f"demonstration [-{d.question} -> {d.answer}-]" for d in old if d not in found.candidate.demos)
    settings = dict(base.settings) if base else {}
    yield from (f"setting {k}: {settings.get(k)} -> {v}" for k, v in found.candidate.settings if settings.get(k) != v)
    yield ""


def _diffs(found: Why) -> dict[str, list[list[str]]]:
    before = dict(found.parents[0].texts) if found.parents else {}
    return {name: [list(piece) for piece in diff.pieces(before.get(name, ""), text)] for name, text in found.candidate.texts}


def _examples(change: Difference) -> Iterator[str]:
    for what, examples in (("fixed", change.fixed), ("broke", change.broken)):
        if examples:
            yield f"    {what} {len(examples)}: {', '.join(examples[:_SHOWN])}{' ...' if len(examples) > _SHOWN else ''}"


def _names(parents: tuple[Candidate, ...]) -> str:
    return " and ".join(p.id[:8] for p in parents) or "nobody known"


def _quote(words: Mapping[str, str] | None) -> str:
    if words is None:
        return ""
    return f"  {_line(words['question'], 70)!r} -> {_line(words['answer'], 50)!r}"


def _line(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _words(traces: Path, examples: set[str], parent: str) -> dict[str, dict[str, str]]:
    """Question and the parent's answer, from the traces of a finished run; nothing of a file that is not there or cut short."""
    found: dict[str, dict[str, str]] = {}
    if not examples or not traces.is_file():
        return found
    with traces.open(encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["candidate"] == parent and row["example"]["id"] in examples:
                answer = row["second"]["output"]
                found[row["example"]["id"]] = {"question": row["example"]["question"], "answer": "" if answer is None else answer}
    return found
