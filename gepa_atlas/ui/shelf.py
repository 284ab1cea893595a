"""The runs directly below a directory, by the name of theirs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from gepa_atlas.errors import AtlasError
from gepa_atlas.secrets import scrub
from gepa_atlas.ui.watched import Watched

_SHOWN = ("name", "run_id", "status", "reason", "started", "limits", "rollouts", "candidates", "gain", "has_report")


class Shelf:
    """Runs are found anew at every look and read on from where the last look ended. For several threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._known: dict[str, Watched] = {}

    def find(self, name: str) -> Watched | None:
        """The run of this name, or None. A name is that of a directory here, never a path."""
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            return None
        directory = self.directory / name
        with self._lock:
            if not (directory / "run.db").is_file():
                self._known.pop(name, None)
                return None
            if name not in self._known:
                self._known[name] = Watched(directory)
            return self._known[name]

    def rows(self) -> list[dict[str, Any]]:
        """A line for each run, newest first. One that cannot be read is listed with the reason."""
        names = sorted(path.parent.name for path in self.directory.glob("*/run.db"))
        found = [self._row(run) for name in names if (run := self.find(name)) is not None]
        return sorted((row for row in found if row is not None), key=lambda row: -(row["started"] or 0.0))

    def _row(self, run: Watched) -> dict[str, Any] | None:
        try:
            run.look()
        except AtlasError as error:
            return _unreadable(run, str(error))
        except OSError:  # it was removed meanwhile
            return None
        state = run.state()
        if not state["run_id"]:  # ended before it began
            return None
        dollars = [spent["dollars"] for spent in state["spend"].values()]
        tokens = [spent["tokens"] for spent in state["spend"].values()]
        total = {"dollars": None if None in dollars else sum(dollars), "tokens": None if None in tokens else sum(tokens)}
        return {key: state[key] for key in _SHOWN} | total


def _unreadable(run: Watched, why: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys((*_SHOWN, "dollars", "tokens"))
    return row | {"name": scrub(run.directory.name), "status": "damaged", "reason": scrub(why), "has_report": False}
