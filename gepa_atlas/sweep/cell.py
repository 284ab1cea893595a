"""One cell, wherever it runs: a parcel goes to a worker, a row of figures comes back.

A worker on the sweep's own disk works in the sweep's folder, so that a lost cell goes on from its ledger. Elsewhere it unpacks the files
of the parcel into a temporary directory. Secrets never travel: a configuration names environment variables, and the worker has its own.
"""

from __future__ import annotations

import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from gepa_atlas.configfile import Tree
from gepa_atlas.connectors.loading import forgotten, load_callable
from gepa_atlas.errors import ConfigError, RunBusy
from gepa_atlas.evolve.stats import by_example
from gepa_atlas.parcels import Files, pack, strings, unpack
from gepa_atlas.store.lock import remote_disk
from gepa_atlas.sweep.config import Cell, Sweep
from gepa_atlas.types import Lesson, Ruling, Usage

Row = dict[str, Any]
T = TypeVar("T")

_MARK = "sweep.mark"  # a file with a random text in the sweep's folder: who reads it there has the same disk
_BUSY_SECONDS = 0.2
_FIGURES = ("gain", "low", "high", "score", "harm", "cost", "tokens", "rollouts")


@dataclass(frozen=True)
class Parcel:
    """What a worker needs. `files` (path relative to `base`, bytes) are empty where every worker has this disk."""

    cell: Cell
    base: str  # directory that relative paths start at
    folder: str  # of the sweep
    mark: str
    tree: Tree | None = None  # of a configuration
    source: str = ""  # its file
    function: str | None = None
    arguments: Tree = field(default_factory=dict)
    files: Files = ()


def parcel(sweep: Sweep, cell: Cell, folder: Path, mark: str, *, travels: bool) -> Parcel:
    """Pack a cell. `travels`: for a worker that may have another disk. Raises ConfigError for a file that cannot travel."""
    suite = sweep.config.suites[cell.suite]
    base = sweep.suite_path(cell.suite).parent if suite.config else sweep.base_dir
    packed = Parcel(cell, str(base), str(folder.absolute()), mark)
    if suite.function is not None:
        packed = replace(packed, function=suite.function, arguments={"settings": sweep.assigned(cell), **suite.params})
        return replace(packed, files=pack([suite.function], base)) if travels else packed
    loaded = sweep.loaded(cell)
    tree = {k: v for k, v in loaded.resolved.items() if k not in ("source", "run_dir", "output", "trace_storage")}
    packed = replace(packed, tree=tree, source=str(loaded.path))
    return replace(packed, files=pack(strings(tree), base)) if travels else packed


def run_cell(packed: Parcel) -> Row:
    """Run one cell and return its row. A cell that fails says why in its row: it never takes others along."""
    started = time.perf_counter()
    row: Row = packed.cell.head() | {"error": None}
    try:
        with tempfile.TemporaryDirectory(prefix="gepa_atlas_cell_") as place, forgotten():
            row |= _function(packed, Path(place)) if packed.function else _experiment(packed, Path(place))
    except KeyboardInterrupt:
        raise
    except (Exception, SystemExit) as error:  # the border of a worker: whatever it was, the sweep goes on and the report names it
        row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return row | {"time": time.perf_counter() - started, "host": socket.gethostname(), "pid": os.getpid()}


def here(folder: Path, mark: str) -> bool:
    """Whether this process sees the sweep's folder."""
    try:
        return (folder / _MARK).read_text("utf-8") == mark
    except OSError:
        return False


def marked(folder: Path) -> str:
    """The mark of a sweep's folder, made if there is none."""
    path = folder / _MARK
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "w") as file:
            file.write(os.urandom(16).hex())
        try:
            os.link(name, path)  # two processes that begin at once agree on one
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
    return path.read_text("utf-8")


# -- the two kinds of a suite -----------------------------------------------------------------------------------------


def _experiment(packed: Parcel, place: Path) -> Row:
    from gepa_atlas import loop
    from gepa_atlas.api import outside_of_a_loop
    from gepa_atlas.build import build_experiment
    from gepa_atlas.cli.session import challenger_of
    from gepa_atlas.config import from_tree
    from gepa_atlas.secrets import watch_environment

    watch_environment()
    loaded = from_tree(packed.tree or {}, _base(packed, place) / Path(packed.source).name)
    experiment, directory = replace(build_experiment(loaded), name=packed.cell.suite), run_directory(packed, place)
    result = outside_of_a_loop(lambda: _when_free(lambda: loop.run(experiment, directory)))
    verdict, spend = result.verdict, sum(result.spend.values(), Usage())
    seed, challenger = result.evolution.seed.id, challenger_of(result).id
    return {
        "gain": verdict.gain,
        "low": verdict.gain_low,
        "high": verdict.gain_high,
        "score": verdict.winner.after if verdict.winner else None,
        "harm": verdict.winner.harm_rate if verdict.winner else None,
        "cost": spend.dollars,
        "tokens": spend.tokens,
        "rollouts": result.rollouts,
        "shipped": verdict.ruling is Ruling.SHIP and challenger != seed,
        "digest": result.digest,
        "examples": paired_gains(result.lessons, seed, challenger, set(result.evolution.test)),
    }


def run_directory(packed: Parcel, place: Path) -> Path:
    """Where a cell's run is kept: with the sweep, so that a lost cell goes on from its ledger, if that is a disk of this machine."""
    folder = Path(packed.folder)
    return folder / "runs" / packed.cell.id if here(folder, packed.mark) and remote_disk(folder.resolve()) is None else place / "run"


def _when_free(run: Callable[[], T]) -> T:
    """A worker that was given up may still be at work on this cell (its sweep was killed, it was not). When it ends, its run is gone on
    with, and nothing is paid twice."""
    while True:
        try:
            return run()
        except RunBusy:
            time.sleep(_BUSY_SECONDS)


def paired_gains(lessons: Sequence[Lesson], seed: str, challenger: str, test: set[str]) -> dict[str, float]:
    """Challenger minus seed on each held-out example that was scored for both: the pairs of the verdict."""

    def of(candidate: str) -> dict[str, tuple[float, float]]:
        return by_example([x for x in lessons if x.candidate_id == candidate and x.example.id in test])

    one, two = of(challenger), of(seed)
    return {e: round(one[e][1] - two[e][1], 9) for e in sorted(one.keys() & two.keys())}


def _function(packed: Parcel, place: Path) -> Row:
    """A function's figures, checked: a misspelt one is an error, a missing one is unknown."""
    call = load_callable(packed.function or "", _base(packed, place), f"suites.{packed.cell.suite}.function").call
    found = call(seed=packed.cell.seed, **packed.arguments)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{packed.function} returned a {type(found).__name__}; it returns a mapping of figures, such as {{'gain': 0.1}}")
    for name in found:
        if name not in _FIGURES and name != "examples":
            raise ConfigError(f"{packed.function} returned {name!r}, which is no figure; there are {', '.join(_FIGURES)} and examples")
    examples = found.get("examples") or {}
    if not isinstance(examples, Mapping):
        raise ConfigError(f"{packed.function} returned examples={examples!r}; they are a mapping of an example's id to its gain")
    row: Row = {name: None if found.get(name) is None else _number(packed, name, found[name]) for name in _FIGURES}
    return row | {"examples": {str(key): _number(packed, f"examples[{key!r}]", value) for key, value in examples.items()}}


def _number(packed: Parcel, name: str, value: Any) -> int | float:
    """A figure as JSON has it; numpy's numbers are numbers too."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = int(value) if isinstance(value, Integral) else float(value)
            if math.isfinite(number):
                return number
        except OverflowError:
            pass
    raise ConfigError(f"{packed.function} returned {name}={value!r}; a figure is a finite number, or None where it is unknown")


def _base(packed: Parcel, place: Path) -> Path:
    """Where relative paths of the cell start on this machine."""
    if not packed.files or here(Path(packed.folder), packed.mark):
        return Path(packed.base)
    return unpack(packed.files, place / "files")
