"""Where lessons come from: the directory of a run, its traces.jsonl, a file of lessons without a run, or an export of ATLAS sessions.

What traces.jsonl does not say (tasks that were never taught, lineage, who is best) comes from the run beside it. A file without a run is
taken for what it is, and `unknown` says what cannot be known from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gepa_atlas.configfile import expand
from gepa_atlas.data import DataConfig, load_examples
from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.handoff import sessions
from gepa_atlas.handoff.lines import Line, Placed, lesson, read_lines, understood
from gepa_atlas.protocols.lesson import TEACHER, prompt
from gepa_atlas.protocols.playbook import Playbook
from gepa_atlas.settings import load
from gepa_atlas.store.log import Event
from gepa_atlas.store.view import RunView
from gepa_atlas.types import Candidate, Demo, Example, digest

TRACES, PROMPTS = "traces.jsonl", "optimized_prompts.json"
_AGAIN = "run `gepa-atlas report {directory}` to write it again"


@dataclass(frozen=True)
class Member:
    """A candidate of the run, and how many steps it is from a seed."""

    candidate: Candidate
    generation: int
    id: str  # as the run calls it


@dataclass(frozen=True)
class Source:
    """Everything the hand-off may ask about. `lessons()` reads the file again each time."""

    kind: Literal["run", "traces", "sessions"]
    traces: Path
    protocol: str
    tasks: Mapping[str, Example]
    lessons: Callable[[], Iterator[Placed]] = field(repr=False)
    members: Mapping[str, Member] = field(default_factory=dict)
    seed_id: str = ""
    best_id: str = ""  # empty: nobody said
    front: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)  # run_id, name, digest, fingerprints, models
    unknown: tuple[str, ...] = ()


def open_source(path: Path, eval_ratio: float | None = None) -> Source:
    """Look at what is there. Raises DataError or ConfigError, one line."""
    if path.is_dir():
        if not (path / "run.db").is_file():
            raise DataError(f"{path}: holds no run (there is no run.db); give the directory of a run, or a traces.jsonl")
        return _run(path, path / TRACES)
    first = next(read_lines(path), None)
    if first is None:
        raise DataError(f"{path}: no lessons in it; give the traces.jsonl of a finished run")
    if sessions.is_session(first.line):
        return _sessions(path, eval_ratio)
    if path.name == TRACES and (path.parent / "run.db").is_file():
        return _run(path.parent, path)
    return _bare(path)


# -- a run ------------------------------------------------------------------------------------------------------------


def _run(directory: Path, traces: Path) -> Source:
    with RunView.read(directory) as run:
        if run.status != "finished":
            raise ConfigError(f"{directory}: the run is {run.status}, not finished; the same `gepa-atlas optimize` command goes on with it")
        events, manifest, run_id = run.events(), run.manifest, run.run_id
    document = _document(directory)
    config = _document_of(directory / "config.json")
    with understood(str(directory / "config.json"), "start the optimization in a new directory"):
        tasks, models = _tasks(config, manifest.get("data", "")), _models(config)
    with understood(str(directory / PROMPTS), _again(directory)):
        members = _members(events, document, config)
        best, front = str(document["best_candidate_id"]), tuple(row["id"] for row in document["pareto_frontier"])
    cells = {tuple(result[:5]) for event in events if event.kind == "slot" for result in event.payload["results"]}

    def lessons() -> Iterator[Placed]:
        for found in read_lines(traces):
            _check_line(lesson(found), found.place, tasks, cells)
            yield found

    kept = ("run_id", "name", "digest", "protocol", "fingerprints", "stop_reason", "splits")
    return Source(
        "run",
        traces,
        document["protocol"],
        tasks,
        lessons,
        members,
        document["seed_candidate"]["id"],
        best,
        front,
        {name: document.get(name) for name in kept} | {"run_id": run_id, "models": models},
    )


def _document(directory: Path) -> dict[str, Any]:
    document = _document_of(directory / PROMPTS)
    wanted = ("seed_candidate", "best_candidate_id", "pareto_frontier", "protocol", "challenger", "name", "digest", "fingerprints")
    missing = [name for name in wanted if name not in document]
    if missing:
        raise ConfigError(f"{directory / PROMPTS}: has no {missing[0]}; an older version wrote it: {_again(directory)}")
    return document


def _document_of(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); {_again(path.parent)}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds a {type(value).__name__}, not an object; {_again(path.parent)}")
    return value


def _again(directory: Path) -> str:
    return _AGAIN.replace("{directory}", str(directory))


def _tasks(config: Mapping[str, Any], recorded: str) -> dict[str, Example]:
    """The examples of all three splits, as the run had them. ConfigError when the data is not what it was."""
    source = config.get("source")
    if not isinstance(source, str):
        raise ConfigError("config.json of the run does not name its configuration; start the optimization in a new directory")
    where = f"data of {source}"
    data = expand({"data": config.get("data", {})}, os.environ, where).tree["data"]
    dataset = load_examples(load(DataConfig, {k: v for k, v in data.items() if v is not None}, "data"), Path(source).parent)
    if digest(dataset.fingerprint, 16) != recorded:
        raise ConfigError(f"{where}: the examples are no longer those of the run, so its splits cannot be inherited; restore the data")
    return {example.id: example for example in dataset.examples}


def _members(events: list[Event], document: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Member]:
    """Every candidate that was made or that the run was started with, with its distance from a seed."""
    found = dict([_candidate(document["seed_candidate"])])
    warm = [Candidate.from_json(row) for row in (config.get("warm_start") or {}).get("seeds", ())]
    found |= {candidate.id: candidate for candidate in warm}
    for event in events:
        draft = event.payload.get("draft")
        if draft and draft["candidate"]:  # one that is made again, from others, keeps its first parents
            found.setdefault(draft["candidate"]["id"], Candidate.from_json(draft["candidate"]))
    for row in (document["challenger"], *document["pareto_frontier"]):
        found.setdefault(*_candidate(row))
    members: dict[str, Member] = {}
    for name, candidate in found.items():  # parents come before their children
        steps = [members[parent].generation for parent in candidate.parents if parent in members]
        members[name] = Member(candidate, 1 + max(steps, default=-1), name)
    return members


def _candidate(row: Mapping[str, Any]) -> tuple[str, Candidate]:
    made = Candidate(
        tuple(row["candidate"].items()),
        tuple(Demo.from_json(demo) for demo in row["demonstrations"]),
        tuple(row["settings"].items()),
        tuple(row.get("parents", ())),
        row.get("origin", "seed"),
    )
    return row["id"], made


def _models(config: Mapping[str, Any]) -> dict[str, str]:
    """What the configuration calls student and teacher: a provider and, where it names one, a model."""
    agents = config.get("agents", {})
    return {role: _named(agents.get(role)) for role in ("student", "teacher")}


def _named(agent: Any) -> str:
    if not isinstance(agent, dict):
        return ""
    model = agent.get("params", {}).get("model", "")
    inner = model.get("provider", "") + "/" + str(model.get("params", {}).get("model", "")) if isinstance(model, dict) else str(model)
    return f"{agent.get('provider', '')}:{inner}".strip(":/")


def _check_line(line: Line, place: str, tasks: Mapping[str, Example], cells: Set[tuple[Any, ...]]) -> None:
    """A line belongs to the run, and to the split the run had it in. What a test line was relabelled to is found here."""
    example = line["example"]
    known = tasks.get(example["id"])
    if known is None:
        raise DataError(f"{place}: example {example['id']!r} is not in the data of the run; export the traces again")
    if known.split != example["split"]:
        raise DataError(
            f"{place}: example {example['id']!r} is said to be {example['split']}, in the run it is {known.split}; export again"
        )
    if (line["candidate"], example["id"], line["sample"], line["before"]["value"], line["after"]["value"]) not in cells:
        raise DataError(f"{place}: this lesson is not on record in run.db; these are not the traces of the run: export them again")


# -- without a run ----------------------------------------------------------------------------------------------------


def _bare(path: Path) -> Source:
    """Lessons of a run that is elsewhere, or of several: what they say of themselves is all there is."""
    tasks: dict[str, Example] = {}
    members: dict[str, Member] = {}
    protocols: dict[str, None] = {}
    for found in read_lines(path):
        line = lesson(found)
        protocols.setdefault(line["protocol"])
        _one_split(tasks, _example(line), found.place)
        if line["protocol"] == "playbook" and line["candidate"] not in members:
            with understood(found.place):
                members[line["candidate"]] = Member(_played(line), 0, line["candidate"])
    if len(protocols) > 1:
        raise DataError(f"{path}: lessons of the protocols {', '.join(protocols)} in one file; export them one by one")
    protocol = next(iter(protocols))
    seed, prompts = shipped(protocol), "the seed's prompt is" if members else "the prompts of the candidates are"
    return Source(
        "traces",
        path,
        protocol,
        tasks,
        lambda: (Placed(found.place, lesson(found)) for found in read_lines(path)),
        {seed.id: seed} | members,
        seed.id,
        unknown=(
            "no run.db is beside the traces: other tasks than the taught ones, lineage, verdict, student and judges are not known",
            f"{prompts} not in the traces: the shipped one stands for what is not known",
        ),
    )


def shipped(protocol: str) -> Member:
    """The prompt that a run of this protocol starts from when its user brings none."""
    texts = Playbook().seed_texts() if protocol == "playbook" else {TEACHER: prompt("teacher_lesson")}
    candidate = Candidate.of(texts)
    return Member(candidate, 0, candidate.id)


def _example(line: Line) -> Example:
    row = line["example"]
    return Example(
        row["id"], row["question"], tuple(row.get("answers", ())), row.get("context", ""), row["split"],
        tuple(row.get("tags", ())), row.get("spec", ""),
    )  # fmt: skip


def _one_split(tasks: dict[str, Example], example: Example, place: str) -> None:
    known = tasks.setdefault(example.id, example)
    if known.split != example.split:
        raise DataError(f"{place}: task {example.id!r} is {example.split} here and {known.split} before; a task is in one split only")


def _played(line: Line) -> Candidate:
    """Under `playbook` the guidance is the candidate."""
    guidance = line["guidance"]
    texts = guidance.get("texts") or {"guidance": guidance.get("text", "")}
    demos = tuple(Demo.from_json(demo) for demo in guidance.get("demos", ()))
    return Candidate(tuple(texts.items()), demos, tuple(guidance.get("settings", {}).items()))


def _sessions(path: Path, eval_ratio: float | None) -> Source:
    ratio, seed = 0.1 if eval_ratio is None else eval_ratio, shipped("lesson")
    tasks: dict[str, Example] = {}
    for found in sessions.lessons(path, ratio):
        _one_split(tasks, _example(found.line), found.place)
    return Source(
        "sessions",
        path,
        "lesson",
        tasks,
        lambda: sessions.lessons(path, ratio),
        {seed.id: seed},
        seed.id,
        unknown=(
            "ATLAS sessions have no baseline: no delta is known, so they give GRPO prompts and no SFT, DPO or KTO rows",
            "sessions come without a teacher prompt: the shipped one is used",
            "student and judges are not in the sessions: name them in the training configuration (student, rim)",
        ),
    )
