"""Experiment trackers in a process of their own: what they print, start, wait for and import is not the run's.

A tracker is told three things, each a line of JSON on its standard input: `begin`, `log` (figures at a number of rollouts), `end`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from typing import IO, Any

from gepa_atlas.errors import AtlasError, MissingExtra
from gepa_atlas.observe.config import MLflowConfig, TrackioConfig, WandbConfig
from gepa_atlas.observe.facts import CallEnded, Fact, RunBegan, SlotDecided

_PATIENCE = 55.0  # seconds to write down the rest: MLflow takes 10 and more to make its database


class TrackerFailed(AtlasError):
    pass


class Tracker:
    """Raises MissingExtra when the package is not there; later, TrackerFailed with what the tracker said."""

    def __init__(self, name: str, options: MLflowConfig | WandbConfig | TrackioConfig) -> None:
        if find_spec(name) is None:
            raise MissingExtra(f"observe.{name}", name)
        self._name, self._options = name, options.model_dump()
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[bytes]

    def take(self, fact: Fact) -> None:
        if isinstance(fact, CallEnded):
            return  # figures have them
        if isinstance(fact, RunBegan):
            row: dict[str, Any] = {"run_id": fact.run_id, "name": fact.name, "resumed": fact.resumed, "settings": dict(fact.settings)}
            self._start()
            self._send("begin", row)
        elif isinstance(fact, SlotDecided):
            self._send("log", {"figures": dict(fact.figures), "step": int(fact.figures["rollouts"])})
        else:
            row = {"result": fact.result, "ruling": fact.ruling, "reason": fact.reason, "figures": dict(fact.figures)}
            self._send("end", row)

    def close(self) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise TrackerFailed(f"it was still busy after {_PATIENCE:.0f} s and was ended") from None
        finally:
            atexit.unregister(process.kill)
            self._said.seek(0)
            problem = self._said.read().decode("utf-8", "replace")
            self._said.close()
        if process.returncode != 0:
            raise TrackerFailed(_last_line(problem) or f"its process ended with {process.returncode}")

    def _start(self) -> None:
        command = [sys.executable, "-m", "gepa_atlas.observe.worker", self._name, json.dumps(self._options)]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`; a pipe that nobody reads would fill)
        self._process = process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the run, which then tells the tracker
        )
        atexit.register(process.kill)  # a tracker that hangs does not outlive the run

    def _send(self, what: str, row: dict[str, Any]) -> None:
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(json.dumps({"what": what, **row}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            raise TrackerFailed("its process ended early") from None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
