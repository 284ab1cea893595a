"""How far a training run is, on stderr: notes as lines, steps in place on a terminal and now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time

from gepa_atlas.report.terminal import Stream, clean

_EVERY_SECONDS = 10.0  # between two lines about the same thing where nothing can be repainted
_REPAINT_SECONDS = 0.2


class Lines:
    """A Progress for people. Nothing is shown of a step that is over sooner than it could be read."""

    def __init__(self, quiet: bool = False) -> None:
        self._out = Stream(sys.stderr)
        self._live = self._out.is_terminal()
        self._quiet = quiet
        self._said = time.monotonic()
        self._painted = False
        self._guard = threading.Lock()

    def note(self, text: str) -> None:
        with self._guard:
            self._wipe()
            if not self._quiet:
                self._out.line(clean(text))
            self._said = time.monotonic()

    def step(self, what: str, done: int, total: int | None) -> None:
        with self._guard:
            now = time.monotonic()
            if self._quiet or now - self._said < (_REPAINT_SECONDS if self._live else _EVERY_SECONDS):
                return
            self._said = now
            text = clean(f"    {what}: {done}" + (f" of {total}" if total is not None else ""), 100)
            if self._live:
                sys.stderr.write(f"\r\x1b[2K{text}")
                sys.stderr.flush()
                self._painted = True
            else:
                self._out.line(text)

    def _wipe(self) -> None:
        if self._painted:
            sys.stderr.write("\r\x1b[2K")
            self._painted = False
