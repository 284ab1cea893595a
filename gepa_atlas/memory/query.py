"""What is asked of a store: filters, lists, one trace with all there is of it, and counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from gepa_atlas.errors import ConfigError
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.rows import State
from gepa_atlas.memory.store import Memory

Order = Literal["created", "delta", "after"]
SHOWN = (
    "id", "kind", "run_id", "operation", "candidate_id", "example_id", "sample", "split", "question", "before", "after", "delta",
    "failure", "created", "state",
)  # fmt: skip


@dataclass(frozen=True)
class Filter:
    """Which traces. A bound on a reward or a delta leaves out what is unscored; `since` and `until` are Unix seconds."""

    operation: str | None = None
    run_id: str | None = None
    states: tuple[State, ...] = ()
    kind: Literal["lesson", "session"] | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    min_delta: float | None = None
    max_delta: float | None = None
    since: float | None = None
    until: float | None = None
    failed: bool = False  # only what could not be scored

    @property
    def order(self) -> Order:
        """Newest first; where a delta or a reward is asked for, the largest first."""
        if self.min_delta is not None or self.max_delta is not None:
            return "delta"
        return "after" if self.min_reward is not None or self.max_reward is not None else "created"

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        t = s.traces.c
        # `+ 0` keeps the database from choosing the index of the time where another one has the order: it would have to sort.
        time = t.created if self.order == "created" else t.created + 0
        bounds: tuple[tuple[sa.ColumnElement[Any], float | None, float | None], ...] = (
            (t.after, self.min_reward, self.max_reward),
            (t.delta, self.min_delta, self.max_delta),
            (time, self.since, self.until),
        )
        found = [t.operation == self.operation] if self.operation is not None else []
        found += [t.run_id == self.run_id] if self.run_id is not None else []
        found += [t.state == self.states[0] if len(self.states) == 1 else t.state.in_(self.states)] if self.states else []
        found += [t.kind == self.kind] if self.kind is not None else []
        found += [column >= low for column, low, _ in bounds if low is not None]
        found += [column <= high for column, _, high in bounds if high is not None]
        return [*found, t.failure != ""] if self.failed else found


def selected(which: Filter, columns: tuple[str, ...], limit: int | None = None) -> sa.Select[Any]:
    """The question for a page: an index gives its order, so a page costs what it shows."""
    order = s.traces.c[which.order]
    ordered = [order] if which.order == "created" else [order, s.traces.c.created]
    query = sa.select(*(s.traces.c[name] for name in columns)).where(*which.clauses())
    if which.order != "created":
        query = query.where(order.is_not(None))
    return query.order_by(*(column.desc() for column in (*ordered, s.traces.c.seq))).limit(limit)


def page(memory: Memory, which: Filter, limit: int) -> list[dict[str, Any]]:
    return list(memory.rows(selected(which, SHOWN, limit)))


def lines(memory: Memory, which: Filter, limit: int | None) -> Iterator[dict[str, Any]]:
    """Traces with their bodies in the order they came in; with a limit, the first of `page`."""
    columns = ("seq", "id", "kind", "run_id", "operation", "created", "state", "given_state", "after", "delta", "body")
    if limit is not None:
        chosen = sorted(memory.rows(selected(which, ("seq",), limit)), key=lambda row: int(row["seq"]))
        for at in range(0, len(chosen), 500):
            some = [row["seq"] for row in chosen[at : at + 500]]
            yield from memory.rows(sa.select(*(s.traces.c[c] for c in columns)).where(s.traces.c.seq.in_(some)).order_by(s.traces.c.seq))
        return
    yield from memory.rows(sa.select(*(s.traces.c[c] for c in columns)).where(*which.clauses()).order_by(s.traces.c.seq), streamed=True)


def trace(memory: Memory, id_: str) -> dict[str, Any]:
    """One trace: its row, its line, attempts, rewards, its run's verdict, and every review. ConfigError where there is none."""
    t = s.traces.c
    found = list(memory.rows(sa.select(s.traces).where(t.id == id_)))
    if not found:
        raise ConfigError(f"{id_}: there is no such trace; `gepa-atlas traces list` shows those there are")
    row = found[0]
    parts = {
        "attempts": sa.select(s.attempts).where(s.attempts.c.trace_id == id_).order_by(s.attempts.c.side),
        "rewards": sa.select(s.rewards).where(s.rewards.c.trace_id == id_).order_by(s.rewards.c.side, s.rewards.c.position),
        "reviews": sa.select(s.reviews).where(s.reviews.c.trace_id == id_).order_by(s.reviews.c.seq),
        "verdict": sa.select(s.verdicts).where(s.verdicts.c.run_id == row["run_id"]),
    }
    answers = {name: [_plain(one) for one in memory.rows(query)] for name, query in parts.items()}
    shown = {name: row[name] for name in SHOWN}
    return {**shown, **answers, "verdict": next(iter(answers["verdict"]), None), "line": json.loads(row["body"])}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in ("trace_id", "seq", "body")}
    return kept | ({"evidence": json.loads(row["evidence"])} if "evidence" in row else {})


def counts(memory: Memory, which: Filter) -> list[dict[str, Any]]:
    """By operation: traces, by state, unscored, means of reward and delta, share of harm, first and last."""
    t = s.traces.c

    def share(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
        return sa.func.sum(sa.case((condition, 1), else_=0))

    query = (
        sa.select(
            t.operation,
            sa.func.count().label("traces"),
            *(share(t.state == name).label(name) for name in ("pending", "approved", "quarantined", "golden")),
            sa.func.sum(sa.case((t.after.is_(None), 1), else_=0)).label("unscored"),
            sa.func.avg(t.after).label("reward"),
            sa.func.avg(t.delta).label("delta"),
            sa.func.avg(sa.case((t.delta.is_(None), None), (t.delta < 0, 1.0), else_=0.0)).label("harm"),
            sa.func.min(t.created).label("first"),
            sa.func.max(t.created).label("last"),
        )
        .where(*which.clauses())
        .group_by(t.operation)
        .order_by(t.operation)
    )
    means = ("reward", "delta", "harm")  # PostgreSQL may answer in decimals
    return [{n: float(v) if n in means and v is not None else v for n, v in row.items()} for row in memory.rows(query)]


def judges(memory: Memory, which: Filter) -> list[dict[str, Any]]:
    """By judge: how often it scored and how often it could not, mean before and after."""
    r = s.rewards.c

    def mean(side: str) -> sa.ColumnElement[Any]:
        return sa.func.avg(sa.case((r.side == side, r.value), else_=None))

    query = (
        sa.select(
            r.judge,
            sa.func.count(r.value).label("scored"),
            sa.func.sum(sa.case((r.value.is_(None), 1), else_=0)).label("missing"),
            mean("before").label("before"),
            mean("after").label("after"),
        )
        .select_from(s.rewards)
        .group_by(r.judge)
        .order_by(r.judge)
    )
    clauses = which.clauses()
    if clauses:
        query = query.join(s.traces, s.traces.c.id == r.trace_id).where(*clauses)
    return list(memory.rows(query))


def ids(memory: Memory, which: Filter) -> list[str]:
    """Ids of every trace that matches, in the order they came in."""
    return [row["id"] for row in memory.rows(sa.select(s.traces.c.id).where(*which.clauses()).order_by(s.traces.c.seq))]


def newest(memory: Memory, operation: str, limit: int = 20_000) -> Iterator[dict[str, Any]]:
    """What drift is looked for in: the newest traces of an operation."""
    t = s.traces.c
    columns = (t.id, t.kind, t.run_id, t.operation, t.example_id, t.before, t.after, t.delta, t.created)
    yield from memory.rows(sa.select(*columns).where(t.operation == operation).order_by(t.created.desc(), t.seq.desc()).limit(limit))
