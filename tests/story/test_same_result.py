"""The result of a run depends on its configuration, its seed and the answers: not on speed, order, faults or accidents of the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from gepa_atlas.testing.provider import read_book
from tests.story.stage import TOY, Stage
from tests.story.witness import digest, rollouts

FAST_RETRY = ["--set", "retry={first_wait: 0.001, longest_wait: 0.004}"]


@pytest.fixture(scope="module")
def undisturbed(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of configs/examples/toyworld.yaml, as it is."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    stage.done("optimize", TOY, "--run-dir", directory, "--quiet")
    assert rollouts(directory) <= 600
    return digest(directory)


@pytest.mark.parametrize(
    ("concurrency", "latency", "draw"), [(1, 0.0, 0), (4, 0.002, 1), (4, 0.002, 2), (32, 0.0, 0), (32, 0.004, 3), (32, 0.002, 4)]
)
def test_concurrency_and_latency_change_nothing(
    stage: Stage, room: Path, undisturbed: str, concurrency: int, latency: float, draw: int
) -> None:
    student = f"agents.student.params={{world: {{seed: 3, noise: 0.5}}, latency: {latency}, latency_seed: {draw}, stragglers: 0.02}}"
    stage.done("optimize", TOY, "--run-dir", room / "run", "--quiet", "--set", student, "--set", f"concurrency={concurrency}")
    assert digest(room / "run") == undisturbed


@pytest.mark.parametrize("draw", [1, 2, 3])
def test_thirty_percent_of_attempts_fail_and_nothing_changes(stage: Stage, room: Path, undisturbed: str, draw: int) -> None:
    """429, 500, time-out and malformed answers, and the connection reset now and then."""
    faults = f"{{rate: 0.3, seed: {draw}, kinds: [429, 500, timeout, malformed, unreachable]}}"
    sets = [f"agents.student.params.faults={faults}", f"agents.student.params.ledger={room / 'book'}"]
    sets += [f"agents.student.params.latency={0.0005 * draw}"]
    arguments = [part for assignment in sets for part in ("--set", assignment)]
    ended = stage.done("optimize", TOY, "--run-dir", room / "run", *arguments, *FAST_RETRY)
    assert digest(room / "run") == undisturbed
    book = read_book(room / "book")
    assert set(book.charged.values()) == {1}  # a failed attempt costs nothing, an answer is asked for once
    retried = int(ended.out.split("calls: ")[1].split(" retried")[0])
    assert 0.3 * len(book.charged) < retried < 0.6 * len(book.charged), retried  # 0.3 / 0.7: the faults were there
