"""Memory: the one writer of a store, which redacts everything on its way in, and what is read back by id.

    with Memory.open("runs/memory.db", redact=(r"ACME-\\d+",)) as memory:
        memory.add(traces)

Writers may be many, on one machine (SQLite) or several (PostgreSQL). A batch is one transaction; what is there already is left as it is,
so doing an import again, whole or after a kill, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gepa_atlas.errors import ConfigError
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.config import Redactor, writable
from gepa_atlas.memory.engine import connect, explained, take_turns, tidy, writing
from gepa_atlas.memory.rows import State, Trace
from gepa_atlas.types import Candidate

BATCH = 2000  # traces of one transaction: indices are in another order, so that a small one writes the same pages again and again
_ASKED = 500  # ids of one question
T = TypeVar("T")


class Memory:
    """A store of traces. Raises ConfigError, MissingExtra, RunBusy, RunChanged (a newer schema), RunDamaged, StoreFull."""

    def __init__(self, engine: sa.Engine, redactor: Redactor) -> None:
        self.engine = engine
        self._redactor = redactor
        self._shown = engine.url.database or "" if engine.dialect.name == "sqlite" else engine.url.render_as_string(hide_password=True)

    @classmethod
    def open(cls, url: str, *, redact: tuple[str, ...] = (), create: bool = True) -> Self:
        """`redact`: regular expressions of what is not kept, besides secrets. With `create` false, a store that is not there is refused."""
        return cls(connect(url, create=create), Redactor(redact))

    def redacting(self, patterns: tuple[str, ...]) -> Memory:
        """The same store through a writer that also cuts these out."""
        return Memory(self.engine, Redactor((*self._redactor.sources, *patterns)))

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def explained(self) -> AbstractContextManager[None]:
        return explained(self._shown)

    # -- writing ------------------------------------------------------------------------------------------------------

    def add(self, found: Iterable[Trace]) -> int:
        """Write traces, a batch a transaction; how many were new."""
        new = 0
        for batch in chunks(found, BATCH):
            new += self._write(partial(self._add, batch=batch))
            tidy(self.engine)
        return new

    def _add(self, connection: sa.Connection, batch: Sequence[Trace]) -> int:
        take_turns(connection, (trace.run_id for trace in batch))
        new = self._insert(connection, s.traces, [trace.row(self._redactor) for trace in batch])
        self._insert(connection, s.attempts, [{"trace_id": t.id, **self._clean(part)} for t in batch for part in t.attempts])
        self._insert(connection, s.rewards, [{"trace_id": t.id, **self._clean(part)} for t in batch for part in t.rewards])
        return new

    def put_run(self, run: Mapping[str, Any], verdict: Mapping[str, Any] | None = None) -> None:
        """Write what is known of a run now; a later word replaces it."""

        def write(connection: sa.Connection) -> None:
            self._replace(connection, s.runs, self._clean(run))
            if verdict is not None:
                self._replace(connection, s.verdicts, self._clean(verdict))

        self._write(write)

    def add_candidates(self, run_id: str, found: Iterable[tuple[Candidate, int, str]]) -> None:
        """(candidate, slot, why it was made) of a run; slot -1 is a seed."""
        for batch in chunks(found, BATCH):
            rows = [
                {"run_id": run_id, "candidate_id": c.id, "slot": slot, "origin": c.origin, "note": note, "body": c.to_json()}
                for c, slot, note in batch
            ]
            parents = [{"run_id": run_id, "candidate_id": c.id, "parent_id": p} for c, _, _ in batch for p in dict.fromkeys(c.parents)]

            def write(connection: sa.Connection, rows: Any = rows, parents: Any = parents) -> None:
                self._insert(connection, s.candidates, [self._clean(row) for row in rows])
                self._insert(connection, s.lineage, [self._clean(row) for row in parents])

            self._write(write)

    def put_evidence(self, run_id: str, items: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace what one run says of its items."""

        def write(connection: sa.Connection) -> None:
            take_turns(connection, [run_id])
            connection.execute(sa.delete(s.evidence).where(s.evidence.c.run_id == run_id))
            self._insert(connection, s.items, [self._clean(item) for item in sorted(items, key=lambda item: str(item["item_id"]))])
            self._insert(connection, s.evidence, [self._clean(row) for row in rows])

        self._write(write)

    def set_state(
        self,
        ids: Sequence[str],
        state: State,
        allowed: Mapping[str, Sequence[str]],
        note: str = "",
        evidence: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Move traces to a state, all or none; returns those that moved. `allowed` maps a state to where one may go from it.

        ConfigError names the first id that is not here, or may not go there.
        """

        def write(connection: sa.Connection) -> list[str]:
            moved = []
            for some in chunks(sorted(set(ids)), _ASKED):
                query = sa.select(s.traces.c.id, s.traces.c.state).where(s.traces.c.id.in_(some)).with_for_update()
                now = {row.id: row.state for row in connection.execute(query)}
                for id_ in some:
                    if id_ not in now:
                        raise ConfigError(f"{id_}: there is no such trace; `gepa-atlas traces list` shows those there are")
                    if state != now[id_] and state not in allowed[now[id_]]:
                        may = ", ".join(allowed[now[id_]])
                        raise ConfigError(f"{id_}: is {now[id_]} and cannot become {state} by this; it can become {may}")
                moved += [id_ for id_ in some if now[id_] != state]
                self._move(connection, [(id_, now[id_]) for id_ in some if now[id_] != state], state, note, evidence or {})
            return moved

        return self._write(write)

    def _move(self, connection: sa.Connection, found: list[tuple[str, str]], state: str, note: str, evidence: Mapping[str, Any]) -> None:
        if found:
            connection.execute(sa.update(s.traces).where(s.traces.c.id.in_([id_ for id_, _ in found])).values(state=state))
            said = self._clean({"note": note, "evidence": evidence})
            rows = [{"trace_id": id_, "was": was, "state": state, "at": time.time(), **said} for id_, was in found]
            connection.execute(sa.insert(s.reviews), rows)

    def _insert(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """Rows that are there already stay as they are; how many were new."""
        if not rows:
            return 0
        made = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table).on_conflict_do_nothing()
        return max(0, connection.execute(made, rows, execution_options={"preserve_rowcount": True}).rowcount)

    def _replace(self, connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
        made = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table).values(dict(row))
        key = [column.name for column in table.primary_key]
        connection.execute(made.on_conflict_do_update(index_elements=key, set_={name: row[name] for name in row if name not in key}))

    def _clean(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The one way in: nothing of a row is written that has not been through here or `Trace.row`. A mapping or list becomes JSON."""
        return {key: self._cleaned(value) for key, value in row.items()}

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return writable(self._redactor.text(value)) if value else value
        if isinstance(value, Mapping | list):
            return self._redactor.document(value)
        return value

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        with self.explained(), writing(self.engine) as connection:
            return work(connection)

    # -- reading ------------------------------------------------------------------------------------------------------

    def rows(self, query: sa.Select[Any], *, streamed: bool = False) -> Iterator[dict[str, Any]]:
        """Rows of a question as mappings. streamed: for more of them than fit into memory."""
        with self.explained(), self._asked(query, streamed) as result:
            for row in result:
                yield dict(row._mapping)

    @contextmanager
    def _asked(self, query: sa.Select[Any], streamed: bool) -> Iterator[sa.CursorResult[Any]]:
        with self.engine.connect().execution_options(stream_results=streamed) as connection:
            result = connection.execute(query)
            try:
                yield result
            finally:
                result.close()

    def states(self, ids: Iterable[str]) -> dict[str, State]:
        """The review state of each of these traces that the store has."""
        found: dict[str, State] = {}
        for some in chunks(ids, _ASKED):
            query = sa.select(s.traces.c.id, s.traces.c.state).where(s.traces.c.id.in_(some))
            found |= {row["id"]: row["state"] for row in self.rows(query)}
        return found


TRAINABLE: tuple[State, ...] = ("approved", "golden")


def states(url: str, ids: Iterable[str]) -> dict[str, State]:
    """The review state of each trace the store has; `rows.trace_id` makes the ids of a run's lessons. A trace that is
    not in the result was never reviewed. Only TRAINABLE states may train."""
    with Memory.open(url, create=False) as memory:
        return memory.states(ids)


def chunks(found: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for one in found:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
