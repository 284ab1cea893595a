"""What `gepa-atlas traces` does once its options are read."""

from __future__ import annotations

import asyncio
import json
import math
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from gepa_atlas.errors import ConfigError
from gepa_atlas.memory import drift, exchange, query
from gepa_atlas.memory import review as reviews
from gepa_atlas.memory.config import compiled, default_url
from gepa_atlas.memory.ingest import ingest
from gepa_atlas.memory.query import Filter
from gepa_atlas.memory.rows import STATES, State
from gepa_atlas.memory.store import Memory
from gepa_atlas.rim.panel import Delta
from gepa_atlas.settings import load
from gepa_atlas.types import Example, digest

_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
Bounds = tuple[float | None, float | None, float | None, float | None]
Limits = tuple[float | None, int | None, float | None]  # dollars, tokens, minutes


def which(
    operation: str | None,
    run: str | None,
    kind: str | None,
    state: Sequence[str] | None,
    bounds: Bounds,
    times: tuple[str | None, str | None],
    failed: bool,
) -> Filter:
    """The filter that the options spell. bounds: least and most reward, least and most delta. ConfigError for what is no state or time."""
    if kind not in (None, "lesson", "session"):
        raise ConfigError(f"--kind {kind}: there are lesson and session")
    states = tuple(_state(name, "--state") for name in state or ())
    for name, value in zip(("--min-reward", "--max-reward", "--min-delta", "--max-delta"), bounds, strict=True):
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{name} {value}: takes a finite number")
    since, until = (None if text is None else _moment(text) for text in times)
    return Filter(operation, run, states, kind, *bounds, since, until, failed)  # type: ignore[arg-type]


def import_(source: Path, memory: str | None, operation: str | None, redact: tuple[str, ...], *, as_json: bool) -> None:
    for pattern in redact:
        try:
            compiled(pattern)
        except ValueError as error:
            raise ConfigError(f"--{error}") from None
    directory = _run_directory(source)
    with Memory.open(_url(memory), redact=redact) as store:
        if directory is not None:
            done = ingest(store, directory, operation)
            total, new, name = done.lessons, done.new, f"operation {done.operation}, run {done.run_id}"
        else:
            (total, new), name = exchange.import_file(store, source, operation), str(source)
    if as_json:
        typer.echo(json.dumps({"source": str(source), "traces": total, "new": new}))
        return
    typer.echo(f"{name}: {total} traces, {new} of them new")


def list_(memory: str | None, which: Filter, limit: int, *, as_json: bool) -> None:
    with _opened(memory) as store:
        found = query.page(store, which, limit)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if not found:
        typer.echo("no such traces; `gepa-atlas traces stats` counts those there are")
    for row in found:
        delta = "      " if row["delta"] is None else f"{row['delta']:+.3f}"
        reward = row["failure"] or "unscored" if row["after"] is None else f"{row['after']:.3f}"
        typer.echo(
            f"{row['id']}  {_when(row['created'])}  {row['state']:11} {one_line(row['operation'], 24):24} {delta:>6} {reward:>8}  "
            f"{one_line(row['question'], 60)}"
        )


def show(memory: str | None, trace: str, *, as_json: bool) -> None:
    with _opened(memory) as store:
        found = query.trace(store, trace)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name in ("id", "kind", "operation", "run_id", "candidate_id", "example_id", "state", "before", "after", "delta", "failure"):
        if found[name] not in ("", None):
            typer.echo(f"{name:14} {one_line(str(found[name]), 200)}")
    typer.echo(f"{'created':14} {_when(found['created'])}")
    line = found["line"]
    if found["kind"] == "lesson":
        texts = {
            "question": line["example"]["question"], "first attempt": line["baseline"]["output"], "guidance": line["guidance"]["text"],
            "second attempt": line["second"]["output"],
        }  # fmt: skip
    else:
        texts = {"task": line["task"], "final answer": line.get("final_answer")}
    for name, text in texts.items():
        typer.echo(f"{name:14} {one_line(str(text), 400)}")
    for reward in found["rewards"]:
        value = reward["missing"] if reward["value"] is None else f"{reward['value']:.3f}"
        typer.echo(f"{reward['side']:14} {value} by {one_line(reward['judge'], 80)}")
    for past in found["reviews"]:
        typer.echo(f"{'review':14} {_when(past['at'])} {past['was']} -> {past['state']}  {one_line(past['note'], 100)}".rstrip())


def review(memory: str | None, ids: Sequence[str], which: Filter, to: str, note: str, *, as_json: bool) -> None:
    state = _state(to, "STATE")
    if bool(ids) == (which != Filter()):
        raise ConfigError("name the traces, or give filters such as --operation and --min-delta that choose them; one of the two")
    with _opened(memory) as store:
        chosen = list(ids) or query.ids(store, which if which.states else replace(which, states=("pending",)))
        moved = reviews.review(store, chosen, state, note)
    if as_json:
        typer.echo(json.dumps({"state": state, "moved": moved}))
        return
    typer.echo(f"{len(moved)} of {len(chosen)} traces became {state}")


def promote(memory: str | None, ids: Sequence[str], note: str, limits: Limits, *, as_json: bool) -> int:
    if not ids:
        raise ConfigError("name the lessons to promote, which is an act of its own; `gepa-atlas traces list --state approved` shows them")
    with _opened(memory) as store:
        runs = {id_: reviews.run_of(store, id_) for id_ in dict.fromkeys(ids)}
        benches = {run["run_id"]: _bench(run, limits) for run in runs.values()}
        done = asyncio.run(_all(store, {id_: benches[run["run_id"]] for id_, run in runs.items()}, note))
    if as_json:
        typer.echo(json.dumps([vars(one) for one in done], indent=2))
    for one in done if not as_json else ():
        typer.echo(f"{one.id}  {'golden' if one.golden else 'stays approved'}: {one.reason}")
    return 0 if all(one.golden for one in done) else 3


async def _all(store: Memory, chosen: dict[str, tuple[reviews.Judge, str]], note: str) -> list[reviews.Promotion]:
    return [await reviews.promote(store, id_, judge, identity, note) for id_, (judge, identity) in chosen.items()]


def _bench(run: dict[str, Any], limits: Limits) -> tuple[reviews.Judge, str]:
    """The judges of a run, built again from the configuration it was started with. ConfigError when they are not the same any more."""
    from gepa_atlas.build import build_experiment
    from gepa_atlas.config import BudgetConfig, load_resolved
    from gepa_atlas.ports import Case

    with tempfile.TemporaryDirectory(prefix="gepa_atlas_") as place:
        (Path(place) / "config.json").write_text(json.dumps(run["config"]), encoding="utf-8")
        try:
            loaded = load_resolved(Path(place))
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{place}/config.json", f"the configuration of run {run['run_id']}")) from None
    usd, tokens, minutes = limits
    given = {"dollars": usd, "tokens": tokens, "seconds": None if minutes is None else minutes * 60}
    budget = load(BudgetConfig, given, "budget")
    experiment = build_experiment(replace(loaded, config=loaded.config.model_copy(update={"budget": budget})))
    if digest(experiment.panel.identity, 16) != run["judges"]:
        raise ConfigError(
            f"run {run['run_id']}: its judges are not the same any more; set rim back to what it was, or leave the lesson approved"
        )

    async def judge(example: Example, before: str, after: str) -> Delta:
        sides = (Case(example, experiment.protocol.answer(output)) for output in (before, after))
        return await experiment.panel.delta(*sides)

    return judge, experiment.panel.identity


def export(memory: str | None, file: Path, which: Filter, limit: int | None, *, atlas: bool, as_json: bool) -> None:
    if file.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"{file}: the name of the file says its form; end it with .jsonl or .parquet")
    if atlas and file.suffix != ".jsonl":
        raise ConfigError(f"--atlas: session traces are JSON lines; end {file} with .jsonl")
    with _opened(memory) as store:
        found = query.lines(store, which, limit)
        count = exchange.as_parquet(found, file) if file.suffix == ".parquet" else exchange.as_jsonl(found, file, sessions=atlas)
    typer.echo(json.dumps({"file": str(file), "traces": count}) if as_json else f"{file}: {count} traces")


def stats(memory: str | None, operation: str | None, window: int, *, as_json: bool) -> None:
    only = Filter(operation=operation)
    with _opened(memory) as store:
        counted, judged = query.counts(store, only), query.judges(store, only)
        names = [row["operation"] for row in counted]
        found = drift.watch([point for name in names for point in drift.points(query.newest(store, name))], window)
    if as_json:
        typer.echo(json.dumps({"operations": counted, "judges": judged, "drift": [one.to_json() for one in found]}, indent=2))
        return
    if not counted:
        typer.echo("no traces of this operation" if operation else "no traces yet; `gepa-atlas traces import RUN` adds those of a run")
    for row in counted:
        states = ", ".join(f"{row[name]} {name}" for name in STATES if row[name])
        reward, delta = (" unknown" if row[name] is None else f"{row[name]:+.3f}" for name in ("reward", "delta"))
        figures = f"reward {reward}, delta {delta}, {row['unscored']} unscored"
        typer.echo(f"{one_line(row['operation'], 30):30} {row['traces']:8} traces ({states}), {figures}")
    for row in judged:
        sides = ", ".join(f"{side} {row[side]:.3f}" for side in ("before", "after") if row[side] is not None)
        typer.echo(f"judge {one_line(row['judge'], 30):24} {row['scored']:8} scores, {row['missing']} missing  {sides}".rstrip())
    for one in found:
        if one.alarm:
            typer.echo(
                f"drift: {one_line(one.operation, 30)}, {one.figure} {one.was:.3f} -> {one.now:.3f} in the last {one.window} of "
                f"{one.window + one.baseline} points (p = {one.p:.2g})"
            )
    if found and not any(one.alarm for one in found):
        tested = sum(one.p is not None for one in found)
        typer.echo(f"drift: none in {tested} tested figures" if tested else f"drift: not tested, it takes {window} + {drift.ENOUGH} points")


# -- what options mean ------------------------------------------------------------------------------------------------


def _url(given: str | None) -> str:
    return given or default_url()


def _opened(given: str | None) -> Memory:
    return Memory.open(_url(given), create=False)


def _run_directory(source: Path) -> Path | None:
    """A run by path or name; a run's own traces.jsonl stands for the run. None: a file."""
    from gepa_atlas.cli.views import find_run

    if source.is_file():
        return source.parent if source.name == "traces.jsonl" and (source.parent / "run.db").is_file() else None
    if source.suffix in (".jsonl", ".parquet"):
        raise ConfigError(f"{source}: there is no such file")
    return find_run(str(source))


def _state(name: str, option: str) -> State:
    for state in STATES:
        if state == name:
            return state
    raise ConfigError(f"{option} {name}: there are {', '.join(STATES)}")


def _moment(text: str) -> float:
    """Unix seconds of an ISO time (local where it names no zone), or of so many days, hours or minutes ago."""
    ago = re.fullmatch(r"(\d{1,6})([dhm])", text)
    if ago:
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(f"{text}: is no time; write 2026-11-27, 2026-11-27T14:00, or 7d, 12h, 30m for so long ago") from None


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f}"


def one_line(text: str, limit: int) -> str:
    flat = " ".join(_CONTROL.sub(" ", text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
