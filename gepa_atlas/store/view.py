"""Reading a run without owning it: `runs list`, `show`, `calls`, `digest`, also while another process works on it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gepa_atlas.errors import AtlasError, ConfigError
from gepa_atlas.store.lock import alive, owner
from gepa_atlas.store.log import Draft, Event, Index, damaged, explain, load


class RunView:
    """What a run directory says, as of opening. Raises ConfigError when there is no run, RunDamaged when its checks fail."""

    def __init__(self, directory: Path, reader: sqlite3.Connection, index: Index) -> None:
        self.directory = directory
        self._reader = reader
        self._index = index

    @classmethod
    def read(cls, directory: str | Path) -> RunView:
        path = Path(directory).absolute()
        if not (path / "run.db").is_file():
            raise ConfigError(f"{path} holds no run (there is no run.db): give the directory a run was started in")
        reader = connect_reader(path)
        try:
            index = load(reader, path)
        except BaseException:
            reader.close()
            raise
        if index.rows == 0:
            reader.close()
            raise ConfigError(f"{path} holds no run: its run.db is empty, the run was ended before it began")
        return cls(path, reader, index)

    @property
    def run_id(self) -> str:
        return self._index.run_id

    @property
    def manifest(self) -> dict[str, str]:
        return dict(self._index.manifest)

    @property
    def started(self) -> float:
        """Unix seconds."""
        return self._index.started

    @property
    def status(self) -> str:
        """running, finished, stopped, or interrupted: it says running and its owner is dead."""
        return status_of(self._index, self.directory)

    @property
    def reason(self) -> str:
        """Why it is stopped."""
        return self._index.reason

    @property
    def told(self) -> int:
        """How many events were told."""
        return len(self._index.told)

    def calls(self) -> dict[str, Any]:
        """What was charged; see Index.calls for what each figure means."""
        return self._index.calls()

    def digest(self) -> str:
        """Hash of everything that was told, in the order of its numbers: free of clock and path as far as the payloads are."""
        return self._index.digest()

    def events(self) -> list[Event]:
        """Everything told, by number."""
        found = []
        for n, (number, _) in sorted(self._index.told.items()):
            head, body = self._row(number, str(n))
            found.append(Event(n, head["kind"], json.loads(body)))
        return found

    def times(self) -> dict[int, float]:
        """When each event was put on record, Unix seconds, by number: as precisely as the row before it says, for events carry no clock."""
        try:
            rows = self._reader.execute("SELECT kind, name, head FROM log ORDER BY id").fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.directory) from None
        found: dict[int, float] = {}
        now = self.started
        for kind, name, head in rows:
            if kind == "event":
                found[int(name)] = now
            else:
                now = float(json.loads(head)["at"])
        return found

    def rows(self) -> list[Draft]:
        """The whole log in the order in which it was written; the id of a row is its place, counted from 1."""
        try:
            found = self._reader.execute("SELECT kind, name, head, body FROM log ORDER BY id").fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.directory) from None
        return [Draft(kind, name, json.loads(head), body) for kind, name, head, body in found]

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _row(self, number: int, name: str) -> tuple[dict[str, Any], str]:
        try:
            rows = self._reader.execute("SELECT head, body FROM log WHERE id = ? AND name = ?", (number, name)).fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.directory) from None
        if not rows:
            raise damaged(self.directory, f"row {number} is gone")
        return json.loads(rows[0][0]), rows[0][1]


def status_of(index: Index, directory: Path) -> str:
    """running, finished, stopped, or interrupted: it says running and its owner is dead."""
    return "interrupted" if index.status == "running" and not alive(owner(directory)) else index.status


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A line of `runs list`."""

    directory: Path
    run_id: str
    status: str  # of RunView.status, or "damaged"
    reason: str
    started: float
    told: int
    rollouts: int


def list_runs(directory: str | Path) -> list[RunInfo]:
    """Every run directly below `directory`, oldest first. One that cannot be read is listed with the reason."""
    found = []
    for path in sorted(Path(directory).absolute().glob("*/run.db")):
        try:
            with RunView.read(path.parent) as run:
                found.append(RunInfo(path.parent, run.run_id, run.status, run.reason, run.started, run.told, run.calls()["rollouts"]))
        except ConfigError:
            continue
        except AtlasError as error:
            found.append(RunInfo(path.parent, "", "damaged", str(error), path.stat().st_mtime, 0, 0))
    return sorted(found, key=lambda run: (run.started, run.directory))


def connect_reader(directory: Path) -> sqlite3.Connection:
    """A read-only connection; the loop's thread and the opening one may differ, they never use it at once."""
    base = (directory / "run.db").as_uri()
    log = directory / "run.db-wal"
    plain = not (log.exists() and log.stat().st_size)
    try:
        reader = sqlite3.connect(f"{base}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.OperationalError:
            reader.close()
            if not plain:
                raise
            reader = sqlite3.connect(f"{base}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise explain(error, directory) from None
    return reader
