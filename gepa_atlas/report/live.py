"""The live view: budget by role, best so far and its course, traffic and limits, the last decisions with their reasons. rich, here only."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gepa_atlas.calls import CallEvent
from gepa_atlas.report.pulse import Pulse, endpoints_text, limits_text, sparkline
from gepa_atlas.report.record import RunRecord
from gepa_atlas.report.summary import closing
from gepa_atlas.report.terminal import (
    QuietView,
    RunHeader,
    SearchState,
    Stream,
    best_text,
    clean,
    decision_text,
    header_lines,
    spent_text,
)
from gepa_atlas.types import Decision, Ruling, SlotKind, Status

_ROWS = 8
_STYLES = {Status.IMPROVED: "bold green", Status.NEW: "green", Status.NOT_ADDED: "dim"}
_RULINGS = {Ruling.SHIP: "bold green", Ruling.DO_NOT_SHIP: "bold yellow", Ruling.INCONCLUSIVE: "bold yellow"}


class LiveView(QuietView):
    """Repaints itself a few times a second while the run goes on, and leaves the header and the closing lines behind."""

    def __init__(self, out: Stream) -> None:
        super().__init__(out)
        self._console = Console(file=out.file, highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._header: RunHeader | None = None
        self._state = SearchState(0)
        self._pulse = Pulse()
        self._course: list[float] = []  # gain of the best after each decision
        self._recent: deque[Decision] = deque(maxlen=_ROWS)
        self._kept: Counter[str] = Counter()
        self._tried: Counter[str] = Counter()
        self._began = time.monotonic()

    def start(self, header: RunHeader) -> None:
        self._header = header
        self._pulse = Pulse(header.spent)
        self._began = time.monotonic()
        try:
            for line in header_lines(header):
                self._console.print(Text(clean(line)))
            self._live = Live(get_renderable=self.picture, console=self._console, refresh_per_second=5, transient=True)
            self._live.start()
        except OSError:
            self._live = None

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._console.print(Text(clean(text), style="bold yellow"), soft_wrap=True)

    def on_decision(self, decision: Decision, state: SearchState) -> None:
        self._state = state
        if decision.kind is SlotKind.IDLE:
            return
        self._recent.append(decision)
        if state.best_gain is not None:
            self._course.append(state.best_gain)
        if decision.kind is SlotKind.CHILD:
            self._tried[decision.operator] += 1
            self._kept[decision.operator] += decision.status is not Status.NOT_ADDED

    def on_call(self, event: CallEvent) -> None:
        self._pulse.take(event)

    def finish(self, record: RunRecord, files: Mapping[str, str]) -> None:
        self.close()
        try:
            verdict, *rest = closing(record, files)
            self._console.print(Text(clean(verdict), style=_RULINGS[record.verdict.ruling]))
            for line in rest:
                self._console.print(Text(clean(line)), soft_wrap=True)
        except OSError:
            pass

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()

    def picture(self) -> RenderableType:
        """What is on the screen now."""
        rows = Table.grid(padding=(0, 1))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        limit = self._header.rollout_limit if self._header else None
        rows.add_row("budget", self._budget(limit))
        rows.add_row("spent", Text(clean(self._pulse.spend_text(), 300)))
        rows.add_row("best", Text(f"{best_text(self._state)}  {self._spark()}", style="bold"))
        rows.add_row("search", Text(self._search()))
        rows.add_row("calls", Text(clean(self._pulse.traffic_text() + self._trouble(), 400)))
        slowed = endpoints_text(self._state.endpoints)
        if slowed:
            rows.add_row("limits", Text(clean(slowed, 300), style="yellow"))
        operators = ", ".join(f"{name} {self._kept[name]}/{n}" for name, n in sorted(self._tried.items()))
        rows.add_row("kept", Text(operators or "no child yet"))
        decisions = [Text(clean(decision_text(d), 400), style=_STYLES[d.status], no_wrap=True, overflow="ellipsis") for d in self._recent]
        return Group(rows, *decisions)

    def _budget(self, limit: int | None) -> RenderableType:
        seconds = time.monotonic() - self._began
        figure = f"{spent_text(self._state.rollouts, limit)} rollouts, {seconds:.0f} s"
        others = limits_text(self._header.limits, self._pulse.spent, seconds) if self._header else ""
        figure += f"; {others}" if others else ""
        if limit is None:
            return Text(figure)
        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(total=max(limit, 1), completed=self._state.rollouts, width=40), Text(figure))
        return line

    def _spark(self) -> str:
        return sparkline(self._course, plain=not self._console.encoding.lower().startswith("utf"))

    def _search(self) -> str:
        state, slots = self._state, self._pulse.slots
        waiting = f" ({', '.join(f'#{n}' for n in slots[:_ROWS])}{', ...' if len(slots) > _ROWS else ''})" if slots else ""
        return f"{state.phase}; {state.candidates} candidates, {state.in_flight} proposals in flight{waiting}"

    def _trouble(self) -> str:
        trouble = ", ".join(f"{n} {what}" for what, n in sorted(self._pulse.trouble.items()))
        return f"; {trouble}, last: {self._pulse.last_reason}" if trouble else ""
