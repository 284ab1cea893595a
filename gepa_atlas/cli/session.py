"""What the commands do once the configuration is read: build, run, watch, export."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from gepa_atlas import loop
from gepa_atlas.build import build_experiment, build_student, notes
from gepa_atlas.calls import CallEvent, Calls
from gepa_atlas.check.rows import Row, advice, static_rows
from gepa_atlas.check.verdicts import full_marks
from gepa_atlas.cli.check import last_estimate
from gepa_atlas.cli.warm import warmed
from gepa_atlas.config import Loaded, load_resolved
from gepa_atlas.errors import AtlasError, ConfigError, RunChanged
from gepa_atlas.evolve.engine import Evolution
from gepa_atlas.evolve.stats import scorecard
from gepa_atlas.loop import Experiment, Result
from gepa_atlas.observe.observing import observing
from gepa_atlas.report.evidence import Evidence, credits
from gepa_atlas.report.html import page
from gepa_atlas.report.ledger import slots_of
from gepa_atlas.report.markdown import markdown
from gepa_atlas.report.prompts import optimized_prompts
from gepa_atlas.report.record import Member, RunRecord
from gepa_atlas.report.terminal import Mode, RunHeader, SearchState, View, make_view
from gepa_atlas.report.traces import trace_rows
from gepa_atlas.rim.audit import watched
from gepa_atlas.store.exports import atomic_write, refused, write_json, write_jsonl
from gepa_atlas.store.view import RunView
from gepa_atlas.types import Candidate, Decision, Lesson, Outcome, Proposal

PROMPTS, TRACES, REPORT, MARKDOWN = "optimized_prompts.json", "traces.jsonl", "report.html", "report.md"
KEPT = (PROMPTS, TRACES, REPORT, MARKDOWN, "config.json", "run.db", "run.db-wal", "run.db-shm", "run.lock")


def run_search(loaded: Loaded, mode: Mode, warm_start: str | None = None) -> int:
    """The `optimize` command: exit code 0 when the run is finished, whatever its verdict."""
    _check_copies(loaded, loaded.run_dir)
    watcher = Watcher(make_view(mode))
    try:
        loaded = loaded if warm_start is None else warmed(loaded, warm_start)
        with observing(loaded.config.observe, watcher, watcher.view.note) as live:
            experiment = build_experiment(loaded, on_call=both(watcher.on_call, live.on_call))
            _refuse_red(static_rows(loaded))
            said = tuple(row.said for row in advice(build_student(loaded)))
            watcher.notes = (*notes(loaded, experiment.dataset), *said, *last_estimate(loaded, experiment))
            result = remembered(loaded, experiment, loaded.run_dir, live, lambda said: typer.echo(said, err=True))
        record = to_record(result, notes(loaded, experiment.dataset))
        watcher.view.finish(record, export(record, result, loaded))
    except KeyboardInterrupt:  # loop.Interrupted, or a signal before or after the search
        watcher.view.close()
        typer.echo(f"interrupted: everything answered so far is saved in {loaded.run_dir}; the same command goes on from here", err=True)
        return 130
    finally:
        watcher.view.close()
    return 0


def remembered(loaded: Loaded, experiment: Experiment, directory: Path, observer: loop.Observer, say: Callable[[str], None]) -> Result:
    """Run the search; where the configuration has a memory, keep what it learns. A store that fails on the way ends no run: it is said."""
    if loaded.config.memory is None:
        return loop.run(experiment, directory, observer)
    from gepa_atlas.memory.live import Remembering

    live = Remembering.open(loaded.config.memory, observer)
    result: Result | None = None
    try:
        result = loop.run(experiment, directory, live)
    finally:
        live.close(result)
        if live.problem is not None:
            say(f"not all of this run is in the memory ({live.problem}); `gepa-atlas traces import {directory}` adds the rest")
    return result


def both(one: Callable[[CallEvent], None], other: Callable[[CallEvent], None]) -> Callable[[CallEvent], None]:
    def told(event: CallEvent) -> None:
        one(event)
        other(event)

    return told


def _refuse_red(rows: list[Row]) -> None:
    """What `check` finds without a call; the rest of it costs something, and is the user's to ask for."""
    for row in rows:
        if row.state == "red":
            raise ConfigError(f"{row.name}: {row.said}; {row.fix}")


def export(record: RunRecord, result: Result, loaded: Loaded) -> dict[str, str]:
    """Write the files of a finished run, and the copies the configuration asks for; returns them by what they hold."""
    prompts = optimized_prompts(record)
    names = {"Prompts": PROMPTS, "Traces": TRACES, "Report": REPORT, "Report (text)": MARKDOWN}
    files = {what: result.directory / name for what, name in names.items()}
    evidence = to_evidence(record, result)
    write_json(files["Prompts"], prompts)
    write_jsonl(files["Traces"], trace_rows(result.lessons))
    atomic_write(files["Report"], page(evidence))
    atomic_write(files["Report (text)"], markdown(evidence))
    if loaded.config.output is not None:
        files["Prompts (copy)"] = Path(loaded.config.output)
        write_json(files["Prompts (copy)"], prompts)
    if loaded.config.trace_storage is not None:
        files["Traces (copy)"] = Path(loaded.config.trace_storage)
        write_jsonl(files["Traces (copy)"], trace_rows(result.lessons))
    return {what: str(path) for what, path in files.items()}


def export_again(directory: Path) -> Path:
    """The `report` command: replay a finished run from its run.db and write its files again. Makes no call; returns the page's path."""
    loaded = load_resolved(directory)
    _check_copies(loaded, directory)
    result = replay(directory)
    record = to_record(result, notes(loaded, result.experiment.dataset))
    for what, path in export(record, result, loaded).items():
        typer.echo(f"{what}: {path}")
    return directory / REPORT


def replay(directory: Path) -> Result:
    """What a finished run found, from its run.db. Makes no call. Raises ConfigError for a run that is not finished."""
    with RunView.read(directory) as run:
        if run.status != "finished":
            raise ConfigError(f"{directory}: the run is {run.status}, not finished; the same `gepa-atlas optimize` command goes on with it")
    try:
        return loop.run(build_experiment(load_resolved(directory)), directory)
    except RunChanged as error:  # so it is where a secret stood in the configuration: config.json has it cut out
        who = "`gepa-atlas optimize` with the configuration of the run writes the report too, without a call"
        raise RunChanged(f"{error} ({who})") from None


class Watcher:
    """Shows a run through a view of `report.terminal`."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.notes: tuple[str, ...] = ()
        self._calls: Calls | None = None

    def on_call(self, event: CallEvent) -> None:
        self.view.on_call(event)

    def started(self, experiment: Experiment, directory: Path, resumed: bool) -> None:
        with RunView.read(directory) as run:
            run_id = run.run_id
        dataset, limits = experiment.dataset, asdict(experiment.limits)
        self._calls = experiment.calls
        self.view.start(
            RunHeader(
                run_id=run_id,
                name=experiment.name,
                directory=str(directory),
                student=experiment.student.identity,
                judges=", ".join(seat.judge.name for seat in experiment.panel.seats),
                operators=tuple(experiment.proposers),
                splits={"train": len(dataset.train), "val": len(dataset.val), "test": len(dataset.test)},
                rollout_limit=experiment.plan.rollouts,
                width=experiment.plan.width,
                resumed=resumed,
                notes=self.notes,
                concurrency=int(experiment.config["concurrency"]),
                limits={name: value for name in ("tokens", "dollars", "seconds") if (value := limits[name]) is not None},
                spent=dict(experiment.calls.spent.by_role),
            )
        )

    def seed_measured(self, lessons: Sequence[Lesson]) -> None:
        """Say before the money is spent that there is nothing to gain."""
        values = [lesson.after.value for lesson in lessons if lesson.after.value is not None]
        full = full_marks(values)
        if full is not None:
            self.view.note(
                f"Headroom: {full[1]}, mean reward {sum(values) / len(values):.2f}. A search can hardly find a better prompt: take harder "
                "examples or stricter judges (Ctrl-C ends this run, resumable)"
            )

    def taught(self, outcome: Outcome, proposal: Proposal) -> None:
        pass  # lessons are for `memory.live`

    def decided(self, decision: Decision, evolution: Evolution) -> None:
        best = evolution.best()
        measured = best.n > 0
        self.view.on_decision(
            decision,
            SearchState(
                rollouts=evolution.budget.spent,
                phase=evolution.phase.value,
                candidates=len(evolution.archive),
                in_flight=evolution.asked - evolution.told,
                best_id=best.id if measured else None,
                best_gain=best.mean if measured else None,
                best_half_width=1.96 * best.var**0.5 if measured else None,
                best_examples=best.n,
                best_origin=best.candidate.origin,
                spend=dict(self._calls.spent.by_role) if self._calls else {},
                endpoints=self._calls.traffic() if self._calls else (),
            ),
        )

    def finished(self, result: Result) -> None:
        pass  # run_search shows it, when its files are written


def to_record(result: Result, known: tuple[str, ...]) -> RunRecord:
    """What the report needs of a result."""
    experiment, evolution = result.experiment, result.evolution
    challenger = challenger_of(result)
    select = set(evolution.val)
    lessons: dict[str, dict[tuple[str, str, int], Lesson]] = defaultdict(dict)
    for lesson in result.lessons:
        if lesson.example.id in select:
            lessons[lesson.candidate_id].setdefault(lesson.cell, lesson)
    population = tuple(
        Member(e.candidate, scorecard(e.id, list(lessons[e.id].values()), len(lessons[e.id])) if e.n else None, e.note)
        for e in evolution.archive.entries
    )
    front = evolution.frontier()
    dataset = experiment.dataset
    return RunRecord(
        run_id=result.run_id,
        name=experiment.name,
        seed=evolution.seed,
        challenger=challenger,
        verdict=result.verdict,
        population=population,
        frontier=tuple(e.id for e in front),
        decisions=tuple(evolution.decisions),
        spend=result.spend,
        rollouts=result.rollouts,
        rollout_limit=experiment.plan.rollouts,
        stop_reason=result.stop_reason,
        splits={"train": len(dataset.train), "val": len(dataset.val), "test": len(evolution.test)},
        fingerprints=_fingerprints(experiment),
        digest=result.digest,
        notes=known,
        protocol=experiment.protocol.name,
        judging=result.judging,
        watch=watched(result.lessons, experiment.panel.watch.judge.name) if experiment.panel.watch else None,
    )


def to_evidence(record: RunRecord, result: Result) -> Evidence:
    """The record with the lessons, slots and beliefs it rests on."""
    slots, evolution = slots_of(result.events), result.evolution
    credit = credits(slots, evolution.portfolio.gained, evolution.portfolio.spent)
    return Evidence(record, result.lessons, slots, tuple(evolution.course), credit, result.began)


def challenger_of(result: Result) -> Candidate:
    """Who was sent to the held-out test: the last decision's candidate, or the search's winner where there was no test."""
    finals = [d.candidate_id for d in result.evolution.decisions if d.operator == "final" and d.candidate_id]
    return result.evolution.archive.get(finals[-1]).candidate if finals else result.evolution.winner().candidate


def _fingerprints(experiment: Experiment) -> dict[str, str]:
    found: dict[str, Any] = {
        "data": experiment.dataset.fingerprint,
        "student": experiment.student.identity,
        "protocol": experiment.protocol.identity,
        "judges": experiment.panel.identity,
    }
    return {name: str(value) for name, value in found.items()}


def _check_copies(loaded: Loaded, run_dir: Path) -> None:
    """A copy replaces an earlier copy and nothing else: not the run's own files, the other copy, a configuration or data."""
    taken = {(run_dir / name).resolve(): "the run keeps" for name in KEPT}
    for key, path, mark in (
        ("output", loaded.config.output, "best_candidate"),
        ("trace_storage", loaded.config.trace_storage, "candidate"),
    ):
        if path is None:
            continue
        copy = Path(path)
        own = (run_dir / (PROMPTS if key == "output" else TRACES)).resolve()
        if copy.resolve() in taken and copy.resolve() != own:
            raise ConfigError(f"{key}: {copy} is a file that {taken[copy.resolve()]}; choose another path")
        _check_writable(copy)
        if copy.exists() and not _written_by_us(copy, mark):
            raise ConfigError(f"{key}: {copy} exists and is no copy of an earlier run; choose another path, or remove it first")
        taken[copy.resolve()] = f"{key} writes"


def _written_by_us(path: Path, mark: str) -> bool:
    """Whether this is empty, or JSON (its first line, of JSON lines) with a key that every copy of its kind has."""
    if path.stat().st_size == 0:
        return True
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline() if mark == "candidate" else file.read())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and mark in first


def _check_writable(path: Path) -> None:
    """A path that cannot be written is refused before anything is spent."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: this is {'a directory' if path.is_dir() else 'not a regular file'}; give the path of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        problem: AtlasError = refused(path, error)
        raise problem from None
