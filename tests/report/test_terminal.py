"""The views: the same story on a terminal, in a pipe, as JSON, and in a few lines; none of them can hurt a run."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gepa_atlas.calls import CallEvent
from gepa_atlas.report.prompts import optimized_prompts
from gepa_atlas.report.terminal import JsonView, Mode, PlainView, QuietView, RunHeader, SearchState, Stream, View, clean, make_view
from gepa_atlas.types import Decision, SlotKind, Status, Usage
from tests.report.records import CHILD, record

HEADER = RunHeader(
    "run-1", "toyworld", "/runs/toyworld", "toyworld:abc", "exact", ("edit", "demos"), {"train": 36, "val": 24}, 150, 4, False, ("few",)
)
DECISIONS = [
    Decision(0, SlotKind.MEASURE, "seed", CHILD.id, Status.IMPROVED, "new best: mean gain +0.000", 12),
    Decision(1, SlotKind.IDLE, "idle", None, Status.NOT_ADDED, "nothing to do", 0),
    Decision(2, SlotKind.CHILD, "edit", CHILD.id, Status.NEW, "mean gain +0.400; added \x1b[31m“a line”\nof two", 1),
]
FILES = {"Prompts": "/runs/toyworld/optimized_prompts.json"}


def play(view: View) -> None:
    with closing(view):
        view.start(HEADER)
        view.on_call(CallEvent("started", "student", "k1", 0, "toy"))
        view.on_call(CallEvent("retried", "student", "k1", 0, "toy", 1, "429 too many requests"))
        view.on_call(CallEvent("failed", "student", "k1", 0, "toy", 2, "500 internal"))
        for i, decision in enumerate(DECISIONS):
            view.on_decision(decision, SearchState(12 + i, candidates=i, best_gain=0.4, best_half_width=0.1, best_examples=6))
        view.finish(record(), FILES)


def test_plain_lines_tell_the_story() -> None:
    out = io.StringIO()
    play(make_view("plain", out))
    lines = out.getvalue().splitlines()
    assert lines[:6] == [
        "Starting toyworld (run run-1) in /runs/toyworld",
        "Student: toyworld:abc",
        "Judges: exact",
        "Operators: edit, demos",
        "Examples: 36 train, 24 val",
        "Budget: at most 150 rollouts, 4 proposals in flight",
    ]
    assert "call failed: student at toy: 500 internal" in lines
    assert "[ 12/150] #0 best seed: new best: mean gain +0.000 (12 rollouts)" in lines
    assert "[ 14/150] #2 kept edit: mean gain +0.400; added  [31m“a line” of two (1 rollout)" in lines
    assert not [line for line in lines if "idle" in line]
    assert lines[-1] == "Prompts: /runs/toyworld/optimized_prompts.json"
    assert "\x1b" not in out.getvalue()


def test_without_a_terminal_auto_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_view("auto", io.StringIO()), PlainView)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "true")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        assert isinstance(make_view("auto", terminal), PlainView)  # some CI has a terminal that nobody looks at
    os.close(master)


def test_plain_lines_say_once_a_minute_that_it_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    out = io.StringIO()
    view = PlainView(Stream(out))
    view.start(replace(HEADER, limits={"tokens": 1000}, spent={"judge": Usage(5, 5, 0.0, 1.0, 1)}))
    for i in range(130):
        now = float(i)
        view.on_call(CallEvent("started", "student", f"k{i}", 2 * i + 1, "toy"))
        view.on_call(CallEvent("settled", "student", f"k{i}", 2 * i + 1, "toy", 1, usage=Usage(2, 1, None, 0.5, 1)))
    said = [line for line in out.getvalue().splitlines() if line.startswith("still at work")]
    assert len(said) == 2
    assert said[0].startswith(
        "still at work: student 1 in flight, 60 a minute; spent: judge 1 calls 10 tokens; student 60 calls 180 tokens"
    )
    assert said[1].startswith(
        "still at work: student 1 in flight, 60 a minute; spent: judge 1 calls 10 tokens; student 120 calls 360 tokens"
    )
    assert [line.partition("unknown price; ")[2] for line in said] == ["tokens 190 of 1,000", "tokens 370 of 1,000"]


def test_quiet_says_the_end_only() -> None:
    out = io.StringIO()
    play(make_view("quiet", out))
    assert out.getvalue().startswith("Ship the evolved prompt: ")
    assert out.getvalue().splitlines()[-1] == "Prompts: /runs/toyworld/optimized_prompts.json"


def test_json_is_one_object_a_line_and_ends_with_the_result() -> None:
    out = io.StringIO()
    play(make_view("json", out))
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [r["event"] for r in rows] == ["start", "call", "call", "decision", "decision", "decision", "finish"]
    assert rows[0]["splits"] == {"train": 36, "val": 24}
    assert rows[3]["decision"]["reason"] == "new best: mean gain +0.000"
    assert rows[3]["state"]["rollouts"] == 12
    assert rows[-1]["result"] == json.loads(json.dumps(optimized_prompts(record())))
    assert rows[-1]["files"] == FILES


@pytest.mark.parametrize("mode", ["plain", "json", "quiet"])
def test_a_stream_that_is_gone_does_not_end_the_run(mode: Mode) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", buffering=1)
    play(make_view(mode, stream))
    closed = io.StringIO()
    closed.close()
    play(make_view(mode, closed))
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_an_ascii_stream_gets_what_it_can_show() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    play(make_view("plain", stream))
    assert b"?a line?" in raw.getvalue()


def test_nothing_that_a_model_wrote_reaches_the_terminal_raw() -> None:
    assert clean("a\x1b]0;title\x07b\r\nc\u202ed") == "a ]0;title b c d"
    assert clean("key sk-" + "a" * 20) == "key [redacted]"
    assert clean("x" * 10, 5) == "xxxx…"


def read_all(descriptor: int, into: list[bytes]) -> None:
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            return
        if not data:
            return
        into.append(data)


def test_a_real_terminal_gets_the_live_view_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CI", raising=False)
    master, slave = pty.openpty()
    seen: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(master, seen))
    reader.start()
    with os.fdopen(slave, "w") as terminal:
        view = make_view("auto", terminal)
        assert not isinstance(view, PlainView)
        play(view)
        view.close()
    reader.join()
    os.close(master)
    text = b"".join(seen).decode()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor was hidden and is shown again
    bare = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    for expected in (
        "Starting toyworld",
        "14/150 rollouts",
        "█",
        "student 0 in flight",
        "gain +0.400 ± 0.100",
        "edit 1/1",
        "1 retried",
        "Ship the evolved prompt",
    ):
        assert expected in bare, expected
    assert "[31m“a line”" in bare and "\x1b[31m“a" not in text


def test_the_view_modes_are_what_they_say() -> None:
    out = io.StringIO()
    assert isinstance(make_view("json", out), JsonView)
    assert isinstance(make_view("quiet", out), QuietView)


def test_rich_is_imported_by_the_live_view_only() -> None:
    code = "import sys, gepa_atlas.report.terminal as t; t.make_view('plain'); print([m for m in sys.modules if m.split('.')[0] == 'rich'])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
