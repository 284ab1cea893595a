"""A run directory into the store. Doing it again, after a kill or beside a run that is being remembered live, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.memory.rows import Trace, lesson
from gepa_atlas.memory.skills import evidence_of
from gepa_atlas.memory.store import Memory
from gepa_atlas.store.view import RunView
from gepa_atlas.types import Candidate

PROMPTS, TRACES = "optimized_prompts.json", "traces.jsonl"


@dataclass(frozen=True)
class Ingested:
    """What came of an import: lessons in the run, and how many of them the store did not have."""

    run_id: str
    operation: str
    lessons: int
    new: int


def ingest(memory: Memory, directory: Path, operation: str | None = None) -> Ingested:
    """Read a finished run and write it. Nothing is written when something of it cannot be read: ConfigError, DataError, RunDamaged."""
    with RunView.read(directory) as run:
        if run.status != "finished":
            raise ConfigError(
                f"{directory}: the run is {run.status}; the same `gepa-atlas optimize` command finishes it "
                "(with `memory: on` in its configuration its lessons are remembered while it goes on)"
            )
        events, times = run.events(), run.times()
        run_id, started, judges = run.run_id, run.started, run.manifest.get("rim", "")
    config = _document(directory / "config.json", "`gepa-atlas optimize` with its configuration")
    prompts = _document(directory / PROMPTS, f"`gepa-atlas report {directory}`")
    operation = operation or operation_of(config)
    memory = memory.redacting(_patterns(config))
    when = {
        (candidate, example, sample): times[event.n]
        for event in reversed(events)
        if event.kind == "slot"
        for candidate, example, sample, *_ in event.payload["results"]
    }
    traces = list(_traces(directory, run_id, operation, when, started))
    candidates = _candidates(prompts, config, [event.payload for event in events if event.kind == "slot"])
    new = memory.add(traces)
    memory.add_candidates(run_id, candidates)
    finish = next(event.payload for event in events if event.kind == "finish")
    memory.put_run(
        run_row(run_id, operation, config, "finished", started, judges), verdict_row(run_id, finish["verdict"], finish["winner"])
    )
    memory.put_evidence(run_id, *evidence_of(run_id, operation, [c for c, _, _ in candidates], traces))
    return Ingested(run_id, operation, len(traces), new)


def _patterns(config: dict[str, Any]) -> tuple[str, ...]:
    """What the run's own configuration says must not be kept."""
    block = config.get("memory")
    return tuple(block.get("redact", ())) if isinstance(block, dict) else ()


def operation_of(config: dict[str, Any]) -> str:
    """What a run's traces are filed under: `memory.operation`, or the name of its configuration."""
    block = config.get("memory")
    given = block.get("operation") if isinstance(block, dict) else None
    return str(given or Path(str(config.get("source", "run"))).stem)


def run_row(run_id: str, operation: str, config: dict[str, Any], status: str, started: float, judges: str) -> dict[str, Any]:
    source = str(config.get("source", ""))
    return {
        "run_id": run_id, "name": Path(source).stem, "operation": operation, "status": status, "started": started,
        "judges": judges, "source": source, "config": config,
    }  # fmt: skip


def verdict_row(run_id: str, verdict: dict[str, Any], winner: dict[str, Any]) -> dict[str, Any]:
    figures = {name: verdict[name] for name in ("gain", "gain_low", "gain_high", "pairs")}
    return {"run_id": run_id, "ruling": verdict["ruling"], "winner_id": winner["id"], **figures, "body": {**verdict, "winner": winner}}


def _traces(directory: Path, run_id: str, operation: str, when: dict[tuple[str, str, int], float], started: float) -> Iterator[Trace]:
    path = directory / TRACES
    if not path.is_file():
        raise ConfigError(f"{path}: is missing; `gepa-atlas report {directory}` writes it again")
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                cell = (line["candidate"], line["example"]["id"], line["sample"])
                yield lesson(line, run_id, operation, when.get(cell, started))
            except (ValueError, KeyError, TypeError, DataError) as error:
                raise DataError(f"{path}, line {number}: {error}; `gepa-atlas report {directory}` writes the file again") from None


def _candidates(prompts: dict[str, Any], config: dict[str, Any], slots: list[dict[str, Any]]) -> list[tuple[Candidate, int, str]]:
    """The seeds, then every draft in the order in which the search was told of it."""
    found: dict[str, tuple[Candidate, int, str]] = {}
    row = prompts.get("seed_candidate")  # absent from files of older versions
    rows = [] if row is None else [{"texts": row["candidate"], "demos": row["demonstrations"], "settings": row["settings"]}]
    for content in (*rows, *(config.get("warm_start") or {}).get("seeds", ())):
        seed = Candidate.from_json(content)
        found[seed.id] = (seed, -1, "")
    for slot in slots:
        draft = slot["draft"]
        if draft is not None and draft["candidate"] is not None:
            candidate = Candidate.from_json(draft["candidate"])
            found.setdefault(candidate.id, (candidate, int(slot["proposal"]["n"]), draft["note"]))
    return list(found.values())


def _document(path: Path, mend: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no mapping")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); {mend} writes it again") from None
    return found
