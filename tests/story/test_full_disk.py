"""The disk is full, at any moment of a run: one line, exit code 74, run.db intact; with room again the same command finishes the run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.story.stage import TOY, Stage
from tests.story.witness import Witness, digest, files


def command(directory: Path, book: Path) -> list[str | Path]:
    student = f"{{world: {{seed: 3, noise: 0.5, examples: 5}}, ledger: {book}}}"
    sets = [f"agents.student.params={student}", "max_metric_calls=40", "data.toyworld.examples=30"]
    return ["optimize", TOY, "--run-dir", directory, "--quiet", *(part for assignment in sets for part in ("--set", assignment))]


@pytest.fixture
def want(stage: Stage, room: Path) -> str:
    stage.done(*command(room / "whole", room / "whole.book"))
    return digest(room / "whole")


def test_no_file_may_grow_beyond_a_size(stage: Stage, room: Path, want: str) -> None:
    """The kernel refuses every write beyond a limit, of run.db, its log or an export: each size stops the run somewhere else."""
    largest = max(path.stat().st_size for path in (room / "whole").iterdir())
    refused = 0
    for size in (*range(1024, 60_000, 9_000), *range(60_000, largest + 60_000, 80_000)):
        directory, book = room / f"run{size}", room / f"run{size}.book"
        witness = Witness(directory, book)
        ended = stage.run(*command(directory, book), largest_file=size)
        if ended.code != 0:
            assert ended.code == 74 and str(directory) in ended.line, ended
            refused += 1
        witness.look()
        stage.done(*command(directory, book))
        witness.look()
        assert digest(directory) == want
        assert (witness.charged_again, witness.lost) == (0, 0) and witness.extra <= witness.in_flight
    assert refused >= 5, refused


@pytest.fixture
def small_disk(room: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    disk = room / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "none", disk], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_small_file_system(stage: Stage, room: Path, small_disk: Path, want: str) -> None:
    directory, book = small_disk / "run", room / "run.book"
    witness = Witness(directory, book)
    ballast = small_disk / "ballast"
    stops = 0
    for free in (1, 16, 40, 64, 64, 64, 64, 64, 128, 256, 512):  # kB, beside what the run has taken already
        room_left = shutil.disk_usage(small_disk).free - 1024 * free
        ballast.write_bytes(bytes(max(0, room_left)))
        ended = stage.run(*command(directory, book))
        shown = stage.run("runs", "show", directory)
        ballast.unlink()
        witness.look()
        if ended.code == 0:
            break
        assert ended.code == 74 and "make room" in ended.line, ended
        assert shown.code in (0, 2, 74) and (shown.code == 0 or shown.line)  # no run yet, or no room even to look at it
        stops += 1
    stage.done(*command(directory, book))
    witness.look()
    assert stops >= 3
    assert digest(directory) == want
    assert (witness.charged_again, witness.lost) == (0, 0) and witness.extra <= witness.in_flight
    assert files(directory).keys() == files(room / "whole").keys()
