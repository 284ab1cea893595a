"""SIGKILL, at any moment and before any commit: the resumed run finds what the undisturbed one found, and pays for nothing twice."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.story.stage import TOY, Act, Ended, Stage
from tests.story.witness import Witness, digest, files, settled

pytestmark = pytest.mark.chaos

CONCURRENCY = 6
LINE = len("P ") + 64 + 1  # bytes of a line of the provider's book


def command(directory: Path, book: Path, *sets: str) -> list[str | Path]:
    """A run of about 130 rollouts that takes a while; everything else as in the example."""
    student = f"{{world: {{seed: 3, noise: 0.5, examples: 5}}, latency: 0.004, stragglers: 0.02, ledger: {book}}}"
    given = [f"agents.student.params={student}", "max_metric_calls=130", "data.toyworld.examples=60", f"concurrency={CONCURRENCY}", *sets]
    return ["optimize", TOY, "--run-dir", directory, "--quiet", *(part for assignment in given for part in ("--set", assignment))]


def undisturbed(stage: Stage, room: Path, *sets: str) -> str:
    """The digest of the run that nobody kills."""
    stage.done(*command(room / "whole", room / "whole.book", *sets))
    return digest(room / "whole")


def kill_some_time(act: Act, book: Path, chance: random.Random) -> Ended:
    """SIGKILL at a random moment: while the process starts, or once the provider's book has grown by a random number of lines. Time is
    measured in progress, so that a slow machine sees the same mixture of moments."""
    size = book.stat().st_size if book.exists() else 0
    goal = size + chance.choice([0, 30, 60]) * chance.random() * LINE
    while not act.ends_within(0.001) and (book.stat().st_size if book.exists() else 0) < goal:
        pass
    act.ends_within(chance.uniform(0.0, 0.06 if goal == size else 0.01))
    act.kill()
    return act.wait()


def held(witness: Witness) -> None:
    """No call that run.db had an answer to was charged again; what was charged again was under way when the process died."""
    assert (witness.charged_again, witness.lost) == (0, 0)
    assert witness.extra <= witness.in_flight


@pytest.mark.parametrize(("kills", "faults"), [(100, 0.0), (25, 0.3)])
def test_killed_at_random_moments(stage: Stage, room: Path, kills: int, faults: float) -> None:
    """Resumed processes are killed too, about a dozen times a run."""
    sets = ("retry={first_wait: 0.001, longest_wait: 0.004}", f"agents.student.params.faults={{rate: {faults}, seed: 1}}")
    want = undisturbed(stage, room, *sets)
    chance = random.Random(kills)
    done: Counter[str] = Counter()
    while done["kills"] < kills:
        directory, book = room / f"run{done['runs']}", room / f"run{done['runs']}.book"
        witness = Witness(directory, book)
        ended = None
        while ended is None or ended.code != 0:
            act = stage.start(*command(directory, book, *sets))
            ended = kill_some_time(act, book, chance) if done["kills"] < kills else act.wait()
            assert ended.code in (0, -signal.SIGKILL), ended
            done["kills"] += ended.code != 0
            witness.look()
        assert digest(directory) == want
        held(witness)
        done.update(runs=1, calls=len(witness.charged), extra=witness.extra, in_flight=witness.in_flight)
    print(dict(done))


def test_killed_before_every_commit(stage: Stage, room: Path) -> None:
    """Write n = 1, 2, ... of the run, and then a write of the run that resumes it, until a run has no write left to die at."""
    short = ("max_metric_calls=14", "data.toyworld.examples=20", "minibatch=2", "agents.student.params.latency=0")
    want = undisturbed(stage, room, *short)
    point = extra = 0
    ended: Ended | None = None
    while ended is None or ended.code != 0:
        point += 1
        directory, book = room / f"run{point}", room / f"run{point}.book"
        witness = Witness(directory, book)
        ended = stage.run(*command(directory, book, *short), die_at_write=point)
        witness.look()
        assert ended.code in (0, -signal.SIGKILL), ended
        again = stage.run(*command(directory, book, *short), die_at_write=1 + point % 5)
        witness.look()
        assert again.code in (0, -signal.SIGKILL), again
        stage.done(*command(directory, book, *short))
        witness.look()
        assert digest(directory) == want
        held(witness)
        extra += witness.extra
    assert point > 8, point  # commits are shared by calls that end together, so their number is not fixed
    print(f"{point} points, {extra} charges beyond one a call")


def test_an_export_that_was_cut_off_is_made_again(stage: Stage, room: Path) -> None:
    """The files of a finished run are functions of run.db: without them, or with half of one, the same command writes them."""
    want = undisturbed(stage, room)
    directory, book = room / "whole", room / "whole.book"
    before = files(directory)
    charged = book.read_bytes()
    (directory / "optimized_prompts.json").unlink()
    (directory / "traces.jsonl").write_bytes((directory / "traces.jsonl").read_bytes()[:1000])
    stage.done(*command(directory, book))
    assert digest(directory) == want and settled(directory)
    assert files(directory) == before
    assert book.read_bytes() == charged
