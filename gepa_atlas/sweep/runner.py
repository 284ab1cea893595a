"""Run a sweep: ask for trials, run their cells, note each row as it comes, tell. The same command goes on where it was ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.store.exports import write_json
from gepa_atlas.sweep.cell import Parcel, Row, marked, parcel
from gepa_atlas.sweep.config import Sweep, SweepConfig
from gepa_atlas.sweep.pool import Pool
from gepa_atlas.sweep.sampling import pruner
from gepa_atlas.sweep.study import Ledger, begun, opened, wanted

if TYPE_CHECKING:
    from optuna import Trial

Progress = Callable[[Row], None]
ABOUT = "sweep.json"


@dataclass
class _Live:
    """A trial that this process works on."""

    trial: Trial
    rows: dict[str, Row]
    wanted: list[str] | None  # cells of it that are run now; None: all
    pruned: bool = False


def run_sweep(
    sweep: Sweep,
    folder: Path,
    *,
    resume: bool = False,
    take_over: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> None:
    """Run what is not yet run. Raises ConfigError for a folder that holds another sweep, or one that was begun and `resume` not given."""
    if retry_failed and not resume:
        raise ConfigError("--retry-failed runs cells of a sweep again that was begun; add --resume")
    check(sweep, folder, resume=resume)
    say = progress or (lambda row: None)
    with Pool(sweep.config.backend, sweep.config.attempts, sweep.config.limits) as pool, ExitStack() as stack:
        if sweep.config.storage is None:
            make(sweep, folder)
        study = stack.enter_context(opened(sweep, folder))
        make(sweep, folder)  # once a back-end and a database answer, so that a sweep that cannot begin leaves nothing
        mark = marked(folder)
        ledger = stack.enter_context(Ledger(sweep, study, folder, take_over=take_over))
        study.pruner = pruner(sweep)
        if retry_failed:
            ledger.retry_failed()
        work = _Round(sweep, ledger, pool, folder, mark, say)
        while batch := ledger.batch(_batch(sweep.config, pool.jobs)):
            work.run([_Live(trial, ledger.cells(trial), wanted(trial)) for trial in batch])


def check(sweep: Sweep, folder: Path, *, resume: bool) -> None:
    """Whether the folder is free, or that of this sweep, to go on with. Raises ConfigError."""
    about = folder / ABOUT
    if about.exists() and not resume:
        raise ConfigError(f"{folder}: holds a sweep that was begun; add --resume to go on with it, or choose another folder with --out")
    if about.exists():
        name, storage = begun(folder)
        if (name, storage) != (sweep.name, sweep.config.storage):
            what = "storage" if name == sweep.name else "name"
            raise ConfigError(
                f"{folder}: was begun with another {what}, and its trials lie there; put {what} back, or start anew with --out"
            )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; choose another folder with --out")
    if not about.exists() and folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: is not empty and holds no sweep; choose another folder with --out")


def make(sweep: Sweep, folder: Path) -> None:
    """The folder, with what it is the folder of."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}); choose another folder with --out") from None
    about = folder / ABOUT
    if not about.exists():
        storage = sweep.config.storage
        write_json(about, {"name": sweep.name, "storage": storage, "source": str(sweep.path), "objectives": sweep.config.objectives})


def values(config: SweepConfig, rows: Sequence[Row]) -> list[float] | None:
    """The objectives of a trial: means over its cells. None when a cell failed or has not that figure."""
    found = []
    for name in config.objectives:
        figures = [row.get(name) for row in rows]
        if not figures or any(row["error"] for row in rows) or any(f is None for f in figures):
            return None
        found.append(math.fsum(f for f in figures if f is not None) / len(figures))
    return found


def _batch(config: SweepConfig, jobs: int) -> int:
    """A matrix learns nothing on the way, so larger rounds only keep workers busy."""
    return config.search.batch or (4 * jobs if config.search.method == "matrix" else jobs)


def _stages(sweep: Sweep) -> list[list[tuple[str, int]]]:
    """Instances that are run together: all of them, or one by one where a trial may be stopped between them."""
    return [sweep.instances] if sweep.config.search.pruner == "none" else [[instance] for instance in sweep.instances]


@dataclass
class _Round:
    """Some trials at a time, from asked to told."""

    sweep: Sweep
    ledger: Ledger
    pool: Pool
    folder: Path
    mark: str
    progress: Progress

    def run(self, trials: list[_Live]) -> None:
        for stage in _stages(self.sweep):
            self._stage(stage, [one for one in trials if not one.pruned])
        for one in trials:
            partly = len(one.rows) < len(self.sweep.instances)
            self.ledger.tell(one.trial, values(self.sweep.config, list(one.rows.values())), partly=partly)

    def _stage(self, stage: list[tuple[str, int]], live: list[_Live]) -> None:
        cells = [(one, self.sweep.cell(one.trial.params, suite, seed)) for one in live for suite, seed in stage]
        asked = [(one, cell) for one, cell in cells if one.wanted is None or cell.key in one.wanted]
        missing = {cell.id: (one, cell) for one, cell in asked if cell.key not in one.rows}
        parcels: list[Parcel] = []

        def done(identity: str, row: Row) -> None:
            (one, cell), checked = missing[identity], _with_objectives(self.sweep.config, row)
            self.ledger.note(one.trial, cell.key, checked)
            one.rows[cell.key] = checked
            self.progress(checked)

        for identity, (_, cell) in missing.items():
            try:
                parcels.append(parcel(self.sweep, cell, self.folder, self.mark, travels=self.pool.travels))
            except (ConfigError, DataError) as error:  # a combination that no configuration allows fails alone
                row: Row = cell.head() | {"time": 0.0}
                done(identity, row | {"error": str(error)})
        self.pool.run(parcels, done)
        if self.sweep.config.search.pruner != "none":
            for one in live:
                one.pruned = self._worse(one)

    def _worse(self, one: _Live) -> bool:
        """Report what a trial has to the pruner, and ask it."""
        if any(row["error"] for row in one.rows.values()):
            return False
        known = self.ledger.steps(one.trial)
        for step, value in _steps(self.sweep, one.rows):
            if step not in known:
                one.trial.report(value, step)
        return one.trial.should_prune() and len(one.rows) < len(self.sweep.instances)


def _steps(sweep: Sweep, rows: dict[str, Row]) -> list[tuple[int, float]]:
    """(step, value) as the pruner takes them. Hyperband: the mean so far, by how many instances are done. Wilcoxon pairs: the gain on
    each held-out example of each instance, or the instance's figure for other objectives."""
    name = sweep.config.objectives[0]
    if sweep.config.search.pruner == "hyperband":
        return [(len(rows), math.fsum(row[name] for row in rows.values()) / len(rows))]
    found: list[tuple[int, float]] = []
    for place, (suite, seed) in enumerate(sweep.instances):
        row: dict[str, Any] = rows.get(f"{suite}/{seed}", {})
        examples = sorted(row.get("examples", {}).items()) if name == "gain" else []
        figures = [value for _, value in examples] or ([row[name]] if row else [])
        found += [(place * 1_000_000 + at, value) for at, value in enumerate(figures)]
    return found


def _with_objectives(config: SweepConfig, row: Row) -> Row:
    """A cell without a figure that the sweep is about has failed, and says so."""
    missing = [name for name in config.objectives if row["error"] is None and row.get(name) is None]
    if not missing:
        return row
    why = {"cost": "the price of a call is not known; use tokens", "tokens": "the agent reports none; use rollouts"}
    return row | {"error": f"no {missing[0]} is known: {why.get(missing[0], 'nothing was scored on held-out examples')}"}
