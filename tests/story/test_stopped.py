"""Ctrl-C and SIGTERM: what is under way is awaited and saved, the exit code is 130, a line says how to go on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from gepa_atlas.testing.provider import read_book
from tests.story.stage import TOY, Act, Stage
from tests.story.witness import Witness, digest


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
        assert ended.code in (0, 130) and ended.err.count("\n") == (ended.code == 130) and "Traceback" not in ended.err, ended
        stage.done(*command(room, f"run{number}", 0.0))
        assert digest(room / f"run{number}") == digest(room / "whole")
