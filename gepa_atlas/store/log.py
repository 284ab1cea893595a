"""run.db, schema 1: one append-only table whose rows are chained by hash, and what is known once they are read.

A row's hash covers the row and the hash before it, so whatever opens is a prefix of what was committed, or RunDamaged. Kinds of rows:

run     name: run id          head: schema, at        body: the manifest, name -> digest
status  name: running | finished | stopped            head: reason, at
intent  name: key of a call   head: role, slot, worst, at
entry   name: key of a call   head: intent (its id), role, slot, status, attempts, usage, at       body: the answer, or kind and reason
event   name: number n        head: kind, digest, leans (ids of failed entries it was decided on)  body: the payload

`at` is Unix seconds. The table is never updated, nothing is ever deleted.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gepa_atlas.errors import AtlasError, RunBusy, RunChanged, RunDamaged, StoreFull
from gepa_atlas.types import Role, Usage, digest

SCHEMA = 1
DDL = """CREATE TABLE log (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, head TEXT NOT NULL, body TEXT NOT NULL, sha TEXT NOT NULL
)"""
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM}


@dataclass(frozen=True, slots=True)
class Draft:
    """A row to be written."""

    kind: str
    name: str
    head: dict[str, Any]
    body: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """A call that was begun: the id of its row, who asks, for which slot."""

    id: int
    role: Role
    slot: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something decided, told once: its number, kind and payload."""

    n: int
    kind: str
    payload: dict[str, Any]


def chain(previous: str, number: int, kind: str, name: str, head: str, body: str) -> str:
    return hashlib.sha256(f"{previous}\n{number}\n{kind}\n{name}\n{len(head)}\n{head}{body}".encode("utf-8", "surrogatepass")).hexdigest()


def explain(error: sqlite3.Error, directory: Path) -> AtlasError:
    """What a user should know of an SQLite error."""
    try:
        primary = error.sqlite_errorcode & 0xFF
    except AttributeError:  # Python itself refused what it read: not UTF-8, say
        return damaged(directory, str(error))
    if primary in _FULL:
        return StoreFull(
            f"{directory / 'run.db'}: the disk refused a write ({error}); what was recorded is intact: make room and run again to resume"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunBusy(f"{directory / 'run.db'}: another program holds a lock on it ({error}); close it and run again to resume")
    return damaged(directory, str(error))


def damaged(directory: Path, why: str) -> RunDamaged:
    return RunDamaged(
        f"{directory / 'run.db'} is damaged ({why}); nothing was changed: restore it from a copy or start a new run directory"
    )


class Index:
    """What the rows say, kept in memory: where each answer is, what was told, what was charged. Grows by about 0.3 kB a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # rows are applied by the writer's thread, asked for by the loop's
        self.rows = 0
        self.sha = ""
        self.run_id = ""
        self.manifest: dict[str, str] = {}
        self.started = 0.0
        self.status = "new"
        self.reason = ""
        self.answers: dict[str, int] = {}  # key -> id of the entry that answers it
        self.failed: set[int] = set()  # ids of entries that are failures
        self.leaned: set[int] = set()  # ids of failures that a told event was decided on
        self.open: dict[str, list[Intent]] = {}  # key -> intents without an entry
        self.under_way = 0  # calls intended and not settled since this process opened the run
        self.told: dict[int, tuple[int, str]] = {}  # n -> id of the event, digest of kind and payload
        self.by_role: Counter[Role] = Counter()
        self.attempts: Counter[Role] = Counter()
        self.usage: dict[Role, Usage] = {}
        self._settled: set[str] = set()

    def apply(self, number: int, sha: str, kind: str, name: str, head: dict[str, Any], body: str) -> None:
        with self._lock:
            self.rows, self.sha = number, sha
            if kind == "entry":
                self._entry(number, name, head)
            elif kind == "intent":
                self.open.setdefault(name, []).append(Intent(number, head["role"], head["slot"]))
                self.under_way += 1
            elif kind == "event":
                self.told[int(name)] = (number, head["digest"])
                self.leaned.update(head["leans"])
            elif kind == "status":
                self.status, self.reason = name, head["reason"]
            elif kind == "run":
                self.run_id, self.manifest, self.started = name, json.loads(body), head["at"]

    def _entry(self, number: int, key: str, head: dict[str, Any]) -> None:
        left = [intent for intent in self.open.pop(key) if intent.id != head["intent"]]
        if left:
            self.open[key] = left
        self.under_way -= 1
        role: Role = head["role"]
        self.attempts[role] += head["attempts"]
        if head["status"] == "dropped":
            return
        self.usage[role] = self.usage.get(role, Usage()) + Usage.from_json(head["usage"])
        if key not in self._settled:
            self._settled.add(key)
            self.by_role[role] += head["attempts"] > 0  # a call that a limit refused was never made
        self.answers[key] = number
        if head["status"] == "failed":
            self.failed.add(number)

    def forgive(self) -> None:
        """Forget failures that nothing told depends on: a new process tries those calls again. Nothing is under way in it yet."""
        self.under_way = 0
        self.answers = {key: number for key, number in self.answers.items() if number not in self.failed or number in self.leaned}

    def calls(self) -> dict[str, Any]:
        """rollouts: settled calls of the student, each distinct call once, failed ones too. by_role: the same for every role.
        usage: what settled calls reported, by role; a call settled twice (failed, then made again by a resume) counts twice here.
        attempts: tries of settled and dropped calls, by role. unsettled: calls under way when a process died, or now: outcome unknown,
        to be taken as charged besides the others; a resume makes them again."""
        with self._lock:
            return {
                "rollouts": self.by_role["student"],
                "by_role": dict(sorted(self.by_role.items())),
                "unsettled": sum(len(intents) for intents in self.open.values()),
                "attempts": dict(sorted(self.attempts.items())),
                "usage": {role: usage.to_json() for role, usage in sorted(self.usage.items())},
            }

    def digest(self) -> str:
        """Hash over the told events in the order of their numbers: free of clock, path, timing and what was charged."""
        with self._lock:
            return digest([[n, sha] for n, (_, sha) in sorted(self.told.items())])


def load(connection: sqlite3.Connection, directory: Path) -> Index:
    """Read and check every row. Raises RunDamaged, RunChanged (a newer schema), StoreFull."""
    index = Index()
    try:
        if not has_log(connection, directory):
            return index
        for _ in read_on(connection, directory, index):
            pass
    except sqlite3.Error as error:
        raise explain(error, directory) from None
    if index.rows == 0:
        raise damaged(directory, "it has no rows")
    return index


def has_log(connection: sqlite3.Connection, directory: Path) -> bool:
    """Whether a run has begun here; its schema and pages are checked. Raises RunDamaged, RunChanged, and sqlite3.Error as it comes."""
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return False
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA:
        raise RunChanged(f"{directory / 'run.db'} has schema {version}, this program reads {SCHEMA}: use the version that wrote it")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise damaged(directory, str(verdict))
    return True


def read_on(connection: sqlite3.Connection, directory: Path, index: Index) -> Iterator[Draft]:
    """Check and take in the rows behind those that the index knows, and hand them out. Raises RunDamaged, and sqlite3.Error as it comes."""
    asked = "SELECT id, kind, name, head, body, sha FROM log WHERE id > ? ORDER BY id"
    for number, kind, name, head, body, sha in connection.execute(asked, (index.rows,)):
        texts = (kind, name, head, body, sha)
        if number != index.rows + 1 or not all(isinstance(text, str) for text in texts) or sha != chain(index.sha, number, *texts[:4]):
            raise damaged(directory, f"row {index.rows + 1} does not match its hash")
        said = json.loads(head)
        index.apply(number, sha, kind, name, said, body)
        yield Draft(kind, name, said, body)
