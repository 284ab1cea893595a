"""Ctrl-C and SIGTERM: what is under way is awaited and saved, the exit code is 130, a line says how to go on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.testing.provider import read_book
from tests.story.stage import ROOT, TOY, Act, Stage
from tests.story.witness import Witness, digest, files


def command(room: Path, name: str, latency: float, *sets: str) -> list[str | Path]:
    student = f"{{world: {{seed: 3, noise: 0.5, examples: 5}}, latency: {latency}, ledger: {room / name}.book}}"
    given = [f"agents.student.params={student}", "max_metric_calls=120", "data.toyworld.examples=40", *sets]
    return ["optimize", TOY, "--run-dir", room / name, "--quiet", *(part for assignment in given for part in ("--set", assignment))]


def reaches(act: Act, book: Path, lines: int) -> None:
    """Wait until the provider's book has so many lines."""
    until = time.monotonic() + 60
    while (book.read_bytes().count(b"\n") if book.exists() else 0) < lines:
        assert not act.ends_within(0.001) and time.monotonic() < until, act.err


@pytest.mark.chaos
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM, signal.SIGINT)])
def test_a_signal_drains(stage: Stage, room: Path, signals: tuple[signal.Signals, ...]) -> None:
    stage.done(*command(room, "whole", 0.0))
    witness = Witness(room / "run", room / "run.book")
    for number, sent in enumerate(signals):
        act = stage.start(*command(room, "run", 0.02))
        reaches(act, room / "run.book", 20 + 50 * number)
        act.kill(sent)
        ended = act.wait()
        assert ended.code == 130, ended
        assert ended.err.count("\n") == 1 and ended.err.startswith("interrupted: ")
        assert str(room / "run") in ended.err and "same command" in ended.err
        witness.look()
        assert witness.in_flight == 0 and witness.extra == 0  # everything that was charged was answered, and the answer was kept
    book = read_book(room / "run.book")
    assert book.charged == book.answered
    stage.done(*command(room, "run", 0.0))
    witness.look()
    assert (witness.charged_again, witness.lost, witness.extra) == (0, 0, 0)
    assert digest(room / "run") == digest(room / "whole")


@pytest.mark.chaos
def test_a_signal_while_calls_wait_to_be_tried_again(stage: Stage, room: Path) -> None:
    """A call between two attempts is given up at once; it is not taken for a failure."""
    faults = ("agents.student.params.faults={rate: 0.3, seed: 5}", "retry={first_wait: 600, longest_wait: 600}")
    stage.done(*command(room, "whole", 0.0))
    act = stage.start(*command(room, "run", 0.002, *faults))
    assert not act.ends_within(1.0)
    act.kill(signal.SIGTERM)
    assert act.wait(30).code == 130
    stage.done(*command(room, "run", 0.0))
    assert digest(room / "run") == digest(room / "whole")


@pytest.mark.chaos
def test_the_second_signal_ends_at_once(stage: Stage, room: Path) -> None:
    stage.done(*command(room, "whole", 0.0))
    act = stage.start(*command(room, "run", 40.0, "agents.student.params.latency_seed=3"))
    reaches(act, room / "run.book", 1)
    act.kill(signal.SIGINT)
    assert not act.ends_within(0.3)  # an answer is awaited that takes most of a minute
    act.kill(signal.SIGINT)
    ended = act.wait(20)
    assert ended.code == 130 and ended.err.count("\n") == 1, ended
    stage.done(*command(room, "run", 0.0))
    assert digest(room / "run") == digest(room / "whole")


@pytest.mark.chaos
def test_a_signal_before_the_run_is_open_and_after_it_is_finished(stage: Stage, room: Path) -> None:
    """Whenever it comes: exit code 130 and one line, or the run was done."""
    stage.done(*command(room, "whole", 0.0))
    for number in range(12):
        act = stage.start(*command(room, f"run{number}", 0.0))
        act.ends_within(0.03 * number)
        act.kill(signal.SIGINT)
        ended = act.wait()
        said = OPEN.sub("", ended.err)
        assert ended.code in (0, 130) and said.count("\n") == (ended.code == 130) and "Traceback" not in said, ended
        stage.done(*command(room, f"run{number}", 0.0))
        assert digest(room / f"run{number}") == digest(room / "whole")


# What the interpreter leaves open where a signal ends an import or the making of an event loop. Said where warnings are errors, as here.
OPEN = re.compile(r"Exception ignored in: .*\n(?:Traceback .*\n(?: .*\n)*)?(?:ResourceWarning: .*\n)?")

HANGS: dict[str, tuple[str, dict[str, Any]]] = {
    "function": ("python.callable", {"callable": "hang.py:answer"}),
    "coroutine": ("python.callable", {"callable": "hang.py:wait"}),
    "command": ("cli.command", {"argv": [sys.executable, "-S", "hang.py"]}),
}
HANG = """
import os, pathlib, time
def note():
    pathlib.Path(__file__).with_name("pid.part").write_text(str(os.getpid()))
    pathlib.Path(__file__).with_name("pid.part").rename(pathlib.Path(__file__).with_name("pid"))
def answer(prompt):
    note()
    time.sleep(600)
async def wait(prompt):
    import asyncio
    note()
    await asyncio.sleep(600)
if __name__ == "__main__":
    answer("")
"""


@pytest.mark.chaos
@pytest.mark.parametrize("kind", HANGS)
def test_an_agent_that_hangs_does_not_hold_the_program(tmp_path: Path, kind: str) -> None:
    """The real program with its real exit: the second Ctrl-C ends it, and the processes it started."""
    provider, params = HANGS[kind]
    (tmp_path / "hang.py").write_text(HANG)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"question": f"q{n}", "answer": "a"}) + "\n" for n in range(30)))
    tree = {"agents": {"student": {"provider": provider, "params": params | {"timeout": 500}}}, "data": {"path": "rows.jsonl"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree | {"operators": ["edit"]}))
    program = [sys.executable, "-c", "from gepa_atlas.cli import main; main()", "optimize", "run.yaml"]
    running = subprocess.Popen(
        program, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "pid").exists():
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.3)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130 and err.startswith("interrupted: ") and err.count("\n") == 1, err
    agent = int((tmp_path / "pid").read_text())
    for _ in range(200):
        if not Path(f"/proc/{agent}").exists():
            break
        time.sleep(0.01)
    assert not Path(f"/proc/{agent}").exists()


@pytest.mark.parametrize("kinds", ["[500]", "[429]", "[timeout]", "[malformed, unreachable]"])
def test_an_endpoint_that_goes_down_in_the_middle(stage: Stage, room: Path, kinds: str) -> None:
    """Exit code 75 and one line; nothing is decided on the failures, so with the endpoint back the result is the undisturbed one."""
    quick = ("retry={first_wait: 0.001, longest_wait: 0.002}",)
    stage.done(*command(room, "whole", 0.0))
    assert stage.run(*command(room, "run", 0.0), die_at_write=12).code == -signal.SIGKILL
    for _ in range(2):
        down = stage.run(*command(room, "run", 0.0, f"agents.student.params.faults={{rate: 1.0, kinds: {kinds}}}", *quick))
        assert down.code == 75 and "same command again" in down.line, down
    stage.done(*command(room, "run", 0.0))
    assert digest(room / "run") == digest(room / "whole")


def test_a_deadline_ends_the_search_and_replays(stage: Stage, room: Path) -> None:
    arguments = command(room, "run", 0.004, "budget={seconds: 0.3}", "concurrency=2", "max_metric_calls=2000")
    assert "Stopped: deadline" in stage.done(*arguments).out
    before, book = files(room / "run"), (room / "run.book").read_bytes()
    stage.done(*arguments)
    assert files(room / "run") == before and (room / "run.book").read_bytes() == book
    stage.done(*arguments, "--set", "budget={}")  # where the limit struck is part of the record
    assert files(room / "run") | {"config.json": before["config.json"]} == before and (room / "run.book").read_bytes() == book


def test_a_damaged_run_is_refused_and_not_touched(stage: Stage, room: Path) -> None:
    stage.done(*command(room, "run", 0.0))
    whole = (room / "run" / "run.db").read_bytes()
    content = whole.replace(b'"verdict"', b'"verdikt"')  # in a row: a bit of a page that nothing uses is no damage
    assert content != whole
    (room / "run" / "run.db").write_bytes(content)
    for arguments in (command(room, "run", 0.0), ["runs", "show", room / "run"], ["report", room / "run"]):
        damaged = stage.run(*arguments)
        assert damaged.code == 4 and "is damaged" in damaged.line
    assert (room / "run" / "run.db").read_bytes() == content
