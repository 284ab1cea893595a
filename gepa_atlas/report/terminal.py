"""What is seen while a run goes on: a live view on a terminal, plain lines elsewhere, JSON events, or nothing but the end.

    with closing(make_view("auto")) as view:
        view.start(header); view.on_decision(decision, state); view.on_call(event); view.finish(record, files)

A view never ends a run: when its stream is gone it goes silent. Texts that models wrote are shown without control characters
and without secrets. `finish` prints the same closing lines in every mode but JSON, where they are the last event.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TextIO

from gepa_atlas.calls import CallEvent
from gepa_atlas.lanes import Traffic
from gepa_atlas.report.prompts import optimized_prompts
from gepa_atlas.report.pulse import Pulse, limits_text
from gepa_atlas.report.record import RunRecord
from gepa_atlas.report.summary import closing
from gepa_atlas.secrets import scrub, scrub_json
from gepa_atlas.types import Decision, Role, SlotKind, Split, Status, Usage

Mode = Literal["auto", "live", "plain", "json", "quiet"]
MODES: tuple[Mode, ...] = ("auto", "live", "plain", "json", "quiet")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
_LINE = 160  # characters of a plain line


@dataclass(frozen=True)
class RunHeader:
    """What is known when a run starts."""

    run_id: str
    name: str
    directory: str
    student: str = ""  # identity of the agent
    judges: str = ""
    operators: tuple[str, ...] = ()
    splits: Mapping[Split, int] = field(default_factory=dict)
    rollout_limit: int | None = None
    width: int = 1  # proposals in flight
    resumed: bool = False
    notes: tuple[str, ...] = ()  # what cannot be claimed
    concurrency: int = 1  # calls at once, over all endpoints
    limits: Mapping[str, float] = field(default_factory=dict)  # hard ones beside rollouts: tokens, dollars, seconds
    spent: Mapping[Role, Usage] = field(default_factory=dict)  # by earlier processes of the run


@dataclass(frozen=True, slots=True)
class SearchState:
    """Where the search stands after a decision. Gains are means on val examples, None before anything is measured."""

    rollouts: int  # spent
    phase: str = "search"
    candidates: int = 0
    in_flight: int = 0  # proposals
    best_id: str | None = None
    best_gain: float | None = None
    best_half_width: float | None = None  # of its 95 % interval
    best_examples: int = 0
    best_origin: str = ""
    spend: Mapping[Role, Usage] = field(default_factory=dict)
    endpoints: tuple[Traffic, ...] = ()


class View(Protocol):
    """Who shows a run. Every method returns at once and raises nothing."""

    def start(self, header: RunHeader) -> None: ...

    def note(self, text: str) -> None:
        """Something to know that came up during the run."""
        ...

    def on_decision(self, decision: Decision, state: SearchState) -> None: ...

    def on_call(self, event: CallEvent) -> None: ...

    def finish(self, record: RunRecord, files: Mapping[str, str]) -> None:
        """`files`: path by what it holds, shown last."""
        ...

    def close(self) -> None:
        """Give the terminal back. May be called at any time, and again."""
        ...


def make_view(mode: Mode = "auto", stream: TextIO | None = None) -> View:
    """The view of this mode on `stream` (standard output by default). auto: live on a capable terminal outside of CI, else plain."""
    out = Stream(stream if stream is not None else sys.stdout)
    if mode == "json":
        return JsonView(out)
    if mode == "quiet":
        return QuietView(out)
    if mode == "live" or (mode == "auto" and out.is_terminal() and not os.environ.get("CI")):
        from gepa_atlas.report.live import LiveView

        return LiveView(out)
    return PlainView(out)


def clean(text: str, width: int | None = None) -> str:
    """`text` on one line: no secret, no control or direction character, cut to `width`."""
    flat = _CONTROL.sub(" ", scrub(text)).strip()
    return flat if width is None or len(flat) <= width else flat[: width - 1] + "…"


class Stream:
    """A text stream that may go away or be too narrow for Unicode; neither is a reason to lose a run."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self._gone = False

    def is_terminal(self) -> bool:
        return not self.file.closed and self.file.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def line(self, text: str) -> None:
        if self._gone:
            return
        encoding = self.file.encoding or "utf-8"
        try:
            self.file.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            self.file.flush()
        except (OSError, ValueError):  # ValueError: the file was closed
            self._gone = True


class QuietView:
    """The closing lines only."""

    def __init__(self, out: Stream) -> None:
        self.out = out

    def start(self, header: RunHeader) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def on_decision(self, decision: Decision, state: SearchState) -> None:
        pass

    def on_call(self, event: CallEvent) -> None:
        pass

    def finish(self, record: RunRecord, files: Mapping[str, str]) -> None:
        for line in closing(record, files):
            self.out.line(clean(line))

    def close(self) -> None:
        pass


class PlainView(QuietView):
    """A line for the start, for each decision, for the first failures of calls, and one a minute while nothing is decided."""

    _SHOWN_FAILURES = 5
    _SILENCE = 60.0  # seconds

    def __init__(self, out: Stream) -> None:
        super().__init__(out)
        self.pulse = Pulse()
        self.limit: int | None = None
        self.limits: Mapping[str, float] = {}
        self.began = self.spoke = time.monotonic()

    def start(self, header: RunHeader) -> None:
        self.limit, self.limits = header.rollout_limit, header.limits
        self.pulse = Pulse(header.spent, time.monotonic)
        self.began = self.spoke = time.monotonic()
        for line in header_lines(header):
            self.out.line(clean(line))

    def note(self, text: str) -> None:
        self.out.line(clean(text))

    def on_decision(self, decision: Decision, state: SearchState) -> None:
        if decision.kind is not SlotKind.IDLE:
            self.spoke = time.monotonic()
            self.out.line(clean(f"[{spent_text(state.rollouts, self.limit)}] {decision_text(decision)}", _LINE))

    def on_call(self, event: CallEvent) -> None:
        pulse = self.pulse
        pulse.take(event)
        now = time.monotonic()
        if now - self.spoke >= self._SILENCE:
            self.spoke = now
            limits = limits_text(self.limits, pulse.spent, now - self.began)
            said = f"still at work: {pulse.traffic_text()}; spent: {pulse.spend_text()}" + (f"; {limits}" if limits else "")
            self.out.line(clean(said, 2 * _LINE))
        if event.what == "failed" and pulse.trouble["failed"] <= self._SHOWN_FAILURES:
            more = "; further failures are counted only" if pulse.trouble["failed"] == self._SHOWN_FAILURES else ""
            self.out.line(clean(f"call failed: {event.role} at {event.endpoint}: {event.reason}{more}", _LINE))

    def finish(self, record: RunRecord, files: Mapping[str, str]) -> None:
        if self.pulse.trouble:
            self.out.line("calls: " + ", ".join(f"{n} {what}" for what, n in sorted(self.pulse.trouble.items())))
        super().finish(record, files)


class JsonView:
    """One JSON object a line: start, note, decision, call (retried, failed or dropped), finish; docs/events.schema.json is their form."""

    def __init__(self, out: Stream) -> None:
        self._out = out

    def start(self, header: RunHeader) -> None:
        row = {n: getattr(header, n) for n in RunHeader.__dataclass_fields__}
        self._emit("start", row | {"splits": dict(header.splits), "limits": dict(header.limits), "spent": _spend(header.spent)})

    def note(self, text: str) -> None:
        self._emit("note", {"text": text})

    def on_decision(self, decision: Decision, state: SearchState) -> None:
        row = {n: getattr(state, n) for n in SearchState.__dataclass_fields__}
        row |= {"spend": _spend(state.spend), "endpoints": [asdict(endpoint) for endpoint in state.endpoints]}
        self._emit("decision", {"decision": decision.to_json(), "state": row})

    def on_call(self, event: CallEvent) -> None:
        if event.what in ("retried", "failed", "dropped"):
            shown = {"what": event.what, "role": event.role, "key": event.key, "slot": event.slot // 2, "endpoint": event.endpoint}
            self._emit("call", shown | {"attempt": event.attempt, "reason": event.reason})

    def finish(self, record: RunRecord, files: Mapping[str, str]) -> None:
        self._emit("finish", {"result": optimized_prompts(record), "files": dict(files), "lines": closing(record, files)})

    def close(self) -> None:
        pass

    def _emit(self, event: str, row: dict[str, Any]) -> None:
        self._out.line(json.dumps(scrub_json({"event": event, **row}), ensure_ascii=True, allow_nan=False))


def _spend(spent: Mapping[Role, Usage]) -> dict[str, Any]:
    return {role: usage.to_json() for role, usage in sorted(spent.items())}


def header_lines(header: RunHeader) -> list[str]:
    verb = "Resuming" if header.resumed else "Starting"
    sizes = ", ".join(f"{n} {split}" for split, n in header.splits.items())
    lines = [f"{verb} {header.name} (run {header.run_id}) in {header.directory}"]
    lines += [f"Student: {header.student}"] if header.student else []
    lines += [f"Judges: {header.judges}"] if header.judges else []
    lines += [f"Operators: {', '.join(header.operators)}"] if header.operators else []
    lines += [f"Examples: {sizes}"] if sizes else []
    limit = "no limit" if header.rollout_limit is None else f"at most {header.rollout_limit} rollouts"
    more = "".join(f", {value:,g} {name}" for name, value in header.limits.items())
    lines.append(f"Budget: {limit}{more}, {header.width} proposals in flight")
    return lines + [f"Note: {note}" for note in header.notes]


def spent_text(spent: int, limit: int | None) -> str:
    return str(spent) if limit is None else f"{spent:>{len(str(limit))}}/{limit}"


_MARKS = {Status.IMPROVED: "best", Status.NEW: "kept", Status.NOT_ADDED: "    "}


def decision_text(decision: Decision) -> str:
    """`#12 best edit: new best: mean gain +0.412 ± 0.120 on 24 val examples (6 rollouts)`."""
    taken = "1 rollout" if decision.rollouts == 1 else f"{decision.rollouts} rollouts"
    return f"#{decision.n} {_MARKS[decision.status]} {decision.operator}: {decision.reason} ({taken})"


def best_text(state: SearchState) -> str:
    if state.best_gain is None:
        return "nothing measured yet"
    half = "" if state.best_half_width is None else f" ± {state.best_half_width:.3f}"
    origin = f", by {state.best_origin}" if state.best_origin else ""
    return f"gain {state.best_gain:+.3f}{half} on {state.best_examples} val examples{origin}"


__all__ = [
    "MODES", "JsonView", "Mode", "PlainView", "QuietView", "RunHeader", "SearchState", "View", "best_text", "clean",
    "decision_text", "header_lines", "make_view", "spent_text",
]  # fmt: skip
