"""Following a run that another process works on: each look reads and checks only what was written since the last one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from gepa_atlas.store.log import Draft, Index, damaged, explain, has_log, read_on
from gepa_atlas.store.view import connect_reader, status_of


class Tail:
    """The log of one run directory from its first row on. Holds no connection and no lock between two looks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.index = Index()
        self._seen: tuple[tuple[int, int], ...] = ()

    @property
    def status(self) -> str:
        """As `RunView.status`; `new` before the first row."""
        return status_of(self.index, self.directory)

    def changed(self) -> bool:
        """Whether there may be something that the last look has not read. Raises OSError when run.db is gone."""
        return self._stamp() != self._seen

    def more(self) -> list[Draft]:
        """What was written since the last look, in order. Raises RunDamaged, also when another run has taken the directory over."""
        stamp = self._stamp()
        with closing(connect_reader(self.directory)) as reader:
            try:
                begun = self.index.rows > 0 or has_log(reader, self.directory)
                self._same(reader)
                fresh = list(read_on(reader, self.directory, self.index)) if begun else []
            except sqlite3.Error as error:
                raise explain(error, self.directory) from None
        self._seen = stamp
        return fresh

    def _same(self, reader: sqlite3.Connection) -> None:
        """That the last row is still the one it was."""
        last = reader.execute("SELECT sha FROM log WHERE id = ?", (self.index.rows,)).fetchall() if self.index.rows else []
        if self.index.rows and last != [(self.index.sha,)]:
            raise damaged(self.directory, f"row {self.index.rows} is not what it was")

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        """What tells a changed database from the same one: size and time of its two files."""
        files = [self.directory / "run.db"]
        log = self.directory / "run.db-wal"
        found = [f.stat() for f in [*files, *([log] if log.exists() else [])]]
        return tuple((f.st_mtime_ns, f.st_size) for f in found)
