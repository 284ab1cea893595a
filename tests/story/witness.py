"""A run seen from outside: what its run.db holds, and what the fake provider wrote in a book of its own."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from pathlib import Path

from gepa_atlas.errors import ConfigError
from gepa_atlas.store import RunView


def digest(directory: Path) -> str:
    with RunView.read(directory) as run:
        assert run.status == "finished", run.status
        return run.digest()


def rollouts(directory: Path) -> int:
    with RunView.read(directory) as run:
        return int(run.calls()["rollouts"])


def told(directory: Path) -> int:
    try:
        with RunView.read(directory) as run:
            return run.told
    except ConfigError:
        return 0


def settled(directory: Path) -> set[str]:
    """Keys of the calls that run.db has an answer to, read with nothing but SQLite."""
    return _keys(directory, "SELECT name FROM log WHERE kind = 'entry' AND json_extract(head, '$.status') = 'done'")


def open_calls(directory: Path) -> set[str]:
    """Calls that run.db says were begun and have no end, by the number of the row that says so."""
    ended = "SELECT json_extract(head, '$.intent') FROM log WHERE kind = 'entry'"
    return _keys(directory, f"SELECT id FROM log WHERE kind = 'intent' AND id NOT IN ({ended})")


def _keys(directory: Path, query: str) -> set[str]:
    if not (directory / "run.db").exists():
        return set()
    reader = sqlite3.connect(directory / "run.db")
    try:
        if not reader.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return set()
        return {str(row[0]) for row in reader.execute(query)}
    finally:
        reader.close()


def files(directory: Path) -> dict[str, str]:
    """Digests of what a user finds in a run directory; SQLite's own bookkeeping files come and go."""
    found = sorted(p for p in directory.rglob("*") if p.is_file() and not p.name.startswith("run.db-"))
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


class Witness:
    """Holds the provider's book against run.db after each death of the process."""

    def __init__(self, directory: Path, book: Path) -> None:
        self._directory, self._book = directory, book
        self._read = 0
        self._safe: set[str] = set()
        self._open: set[str] = set()
        self.charged: Counter[str] = Counter()
        self.charged_again = 0  # calls that run.db had an answer to, and that were charged once more
        self.lost = 0  # answers that run.db had, and has no more
        self.in_flight = 0  # calls under way when the process died, over all deaths

    def look(self) -> None:
        lines = self._book.read_text("ascii").splitlines() if self._book.exists() else []
        for line in lines[self._read :]:
            mark, call = line.split(" ")
            if mark == "P":
                self.charged[call] += 1
                self.charged_again += call in self._safe
        self._read = len(lines)
        now = settled(self._directory)
        self.lost += len(self._safe - now)
        assert now <= self.charged.keys(), "run.db has an answer that nobody gave"
        self._safe = now
        begun = open_calls(self._directory)
        self.in_flight += len(begun - self._open)
        self._open = begun

    @property
    def extra(self) -> int:
        """Charges beyond one a call."""
        return sum(self.charged.values()) - len(self.charged)
