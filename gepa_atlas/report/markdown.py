"""report.md: what a person reads in a terminal, a pull request or a mail. Foreign text stands in fences it cannot close."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gepa_atlas.report import diff
from gepa_atlas.report.evidence import Evidence, panel, points
from gepa_atlas.report.page import PROMPT, said
from gepa_atlas.report.summary import claims, gain_text, sentence, spend_text
from gepa_atlas.secrets import scrub
from gepa_atlas.types import Candidate

_ROWS = 20


def markdown(evidence: Evidence) -> str:
    """The report as text; like the page it depends on no clock and no path."""
    record, verdict = evidence.record, evidence.record.verdict
    parts = [f"# {_plain(record.name)}: {verdict.ruling.value}", _plain(sentence(record))]
    if verdict.winner is not None and verdict.winner.after is not None and verdict.winner.harm_rate is not None:
        seed = verdict.seed.after if verdict.seed and verdict.seed.after is not None else None
        parts.append(
            _table(
                ("held-out test", "value"),
                [
                    ("seed", "unknown" if seed is None else f"{seed:.3f}"),
                    ("evolved" if record.challenger.id != record.seed.id else "kept", f"{verdict.winner.after:.3f}"),
                    ("gain", gain_text(record) or "nothing was compared"),
                    ("harmed", f"{100 * verdict.winner.harm_rate:.1f} %"),
                    ("coverage", f"{100 * verdict.winner.coverage:.1f} %"),
                ],
            )
        )
    parts += ["## What cannot be claimed", _list(claims(record))]
    parts += ["## What it cost", _list(f"{role}: {spend_text(usage)}" for role, usage in sorted(record.spend.items()))]
    parts.append(_plain(f"{record.rollouts} rollouts. Stopped: {record.stop_reason or 'no reason was recorded'}."))
    parts += ["## The prompt to use", *_prompt(record.winner)]
    if record.challenger.id != record.seed.id:
        parts += ["## What changed", *_changes(record.seed, record.challenger)]
    parts += ["## The search (select) split: it chose the prompt, and is not performance", _front(evidence), _operators(evidence)]
    parts += ["## Judges", _judges(evidence)]
    parts.append(f"Digest `{record.digest}`. Every candidate, lesson and figure: report.html; every lesson in full: traces.jsonl.")
    return "\n\n".join(part for part in parts if part) + "\n"


def fenced(text: str, language: str = "text") -> str:
    """A code block that no line of `text` can close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def change_lines(old: str, new: str) -> str:
    """Two texts as lines of a diff: what changed inside a line is told by word in [-dropped-] and {+new+}."""
    marks = {"=": ("", ""), "-": ("[-", "-]"), "+": ("{+", "+}")}
    return "".join(f"{marks[op][0]}{text}{marks[op][1]}" for op, text in diff.pieces(old, new))


def _changes(old: Candidate, new: Candidate) -> Iterable[str]:
    before, after = dict(old.texts), dict(new.texts)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"`{_code(name)}`, dropped in `[- -]`, new in `{{+ +}}`:"
            yield fenced(change_lines(said(before.get(name, ""), PROMPT), said(after.get(name, ""), PROMPT)))
    fresh = [d for d in new.demos if d not in old.demos]
    if fresh:
        yield f"{len(fresh)} demonstrations added:"
        yield fenced("\n".join(f"{said(d.question, 300)} -> {said(d.answer, 300)}" for d in fresh))


def _prompt(candidate: Candidate) -> Iterable[str]:
    for name, text in candidate.texts:
        yield f"`{_code(name)}`:"
        yield fenced(said(text, PROMPT))
    if candidate.demos:
        yield fenced("\n".join(f"{said(d.question, 300)} -> {said(d.answer, 300)}" for d in candidate.demos))


def _front(evidence: Evidence) -> str:
    rows = [p for p in sorted(points(evidence), key=lambda p: -p.gain) if p.front][:_ROWS]
    return _table(
        ("Pareto front", "gain", "harmed", "tokens", "dollars", "lessons"),
        [
            (p.candidate[:8], f"{p.gain:+.3f}", f"{100 * p.harm:.1f} %", _or(p.tokens, ".0f"), _or(p.dollars, ".6f"), str(p.lessons))
            for p in rows
        ],
    )


def _operators(evidence: Evidence) -> str:
    rows = [(c.name, str(c.tried), str(c.kept), str(c.improved), str(c.rollouts), _or(c.worth, ".2f")) for c in evidence.credit]
    return _table(("operator", "tried", "kept", "new best", "rollouts", "gain per 100 rollouts"), rows)


def _judges(evidence: Evidence) -> str:
    seen = panel(evidence.lessons)
    lines = [f"{j.name}: {j.scored} answers scored, {j.missing} without a score, mean {_or(j.mean, '.3f')}" for j in seen.judges]
    lines += [
        f"{a.one} and {a.other}: {a.answers} answers, mean distance {a.apart:.3f}, correlation {_or(a.correlation, '.3f')}, "
        f"half a point apart on {100 * a.disagreed:.1f} %"
        for a in seen.agreement
    ]
    return _list(lines)


def _or(value: float | None, form: str) -> str:
    return "unknown" if value is None else f"{value:{form}}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(str(cell)).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {_plain(item)}" for item in items)


def _plain(text: str) -> str:
    """Foreign text on one line that Markdown takes literally."""
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(scrub(text).split()))


def _code(name: str) -> str:
    return " ".join(said(name, 200).replace("`", "'").split())
