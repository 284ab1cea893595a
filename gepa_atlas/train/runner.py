"""Runs the stages of a training run: one owner a directory, each stage skipped when nothing that it reads has changed.

A stage's key is the hashes of what it reads and of its part of the configuration. Its `stage.json` is written as `running` with that key
before it begins and as `done` after its outputs are on disk, so whatever instant a run is killed at, the next one knows whether the folder
is finished (skipped), begun with the same key (the stage goes on from what it finds) or begun with another one (emptied first; a finished
result stays until the new one is whole, see `earlier`).
"""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gepa_atlas.errors import AtlasError, ConfigError, DataError, GateRefused, UserError
from gepa_atlas.handoff.workspace import FOLDERS, Progress, Silent, StageRecord, StageResult, Workspace, read_record, sha256_file
from gepa_atlas.store.exports import refused, write_json
from gepa_atlas.store.lock import RunLock, refuse_remote
from gepa_atlas.train import earlier, launch
from gepa_atlas.train.config import LoadedTrain, TrainConfig, from_resolved
from gepa_atlas.train.report import REPORT, write_report
from gepa_atlas.train.size import check_disk
from gepa_atlas.train.stages import BY_NAME, Stage, chain
from gepa_atlas.train.surroundings import seed
from gepa_atlas.train.versions import versions
from gepa_atlas.types import digest

MARK = "grpo.json"  # the resolved configuration; a directory that has it is one of ours
# Keys that change how fast or where, and not what: a stage is not run again for them.
FREE = {
    "handoff": {"path"},
    "reward": {"concurrency", "timeout_s", "retries", "cache"},
    "guards": {"judge_backoff_s"},
    "vllm": {"port", "url", "start_timeout_s", "gpu_memory_utilization", "sleep", "gpus"},
    "package": {"promote", "registry"},
}


@dataclass(frozen=True)
class Ran:
    """What came of a chain: each stage with its record, and whether it was skipped."""

    output_dir: Path
    records: Mapping[str, StageRecord] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    @property
    def report(self) -> Path:
        return self.output_dir / REPORT


def run(loaded: LoadedTrain, *, first: str | None = None, until: str | None = None, progress: Progress | None = None) -> Ran:
    """Run the stages from `first` to `until` (both included; None: the ends), and write grpo_report.json whatever happens.

    Stages before `first` are not looked at and must be done. Raises what a stage raises, and GateRefused when the gate's verdict is not
    pass; RunBusy when another process owns the directory.
    """
    progress = progress or Silent()
    stages = part_of(chain(loaded.config), first, until)
    check_disk(loaded.config, loaded.base_dir, loaded.output_dir.absolute())
    directory = claim(loaded)
    lock = RunLock(directory)
    try:
        _sweep(directory)
        write_json(directory / MARK, {**loaded.resolved, "source": str(loaded.path.absolute())})
        return _run_all(placed(loaded, directory), directory, stages, progress)
    finally:
        lock.release()
        if not any(directory.rglob("*stage.json")):  # refused before any stage had begun well: leave nothing behind
            shutil.rmtree(directory)


def placed(loaded: LoadedTrain, directory: Path) -> LoadedTrain:
    """With the place of the traces that the stage `optimize` makes."""
    if loaded.config.optimize is None:
        return loaded
    handoff = loaded.config.handoff.model_copy(update={"path": str(directory / FOLDERS["optimize"])})
    return replace(loaded, config=loaded.config.model_copy(update={"handoff": handoff}))


def part_of(stages: Sequence[Stage], first: str | None, until: str | None) -> tuple[Stage, ...]:
    """The stages from `first` to `until`. Raises ConfigError when one of them is not in this run."""
    names = [s.name for s in stages]
    for flag, name in (("--from", first), ("--until", until)):
        if name is not None and name not in names:
            why = "is not enabled in this configuration" if name in BY_NAME else "is no stage"
            raise ConfigError(f"{flag} {name}: that {why}; the stages of this run are {', '.join(names)}")
    begin = names.index(first) if first else 0
    end = names.index(until) + 1 if until else len(names)
    if begin >= end:
        raise ConfigError(f"--from {first} comes after --until {until}; the order is {', '.join(names)}")
    return tuple(stages[begin:end])


def claim(loaded: LoadedTrain) -> Path:
    """The output directory, made if there is none. A directory with files of somebody else's is refused: stages empty their folders."""
    directory = loaded.output_dir.absolute()
    try:
        refuse_remote(directory)
        directory.mkdir(parents=True, exist_ok=True)
        strangers = [p.name for p in directory.iterdir() if p.name != "run.lock" and not p.name.startswith(f".{MARK}.")]
    except OSError as error:
        raise refused(directory, error) from None
    if strangers and MARK not in strangers:
        raise ConfigError(f"{directory}: holds {strangers[0]!r} and is no training run; choose an empty or new --output-dir")
    return directory


def _sweep(directory: Path) -> None:
    """Remove what a kill left of files and folders that were to be put in place whole: their unfinished names begin with a dot."""
    for left in (path for path in directory.glob(".*") if path.suffix != earlier.SUFFIX):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _run_all(loaded: LoadedTrain, directory: Path, stages: Sequence[Stage], progress: Progress) -> Ran:
    records: dict[str, StageRecord] = {}
    skipped: list[str] = []
    try:
        for n, stage in enumerate(stages, 1):
            work = Workspace(directory, stage.name, loaded.config.seed, loaded.base_dir, progress)
            began = time.monotonic()
            record, ran = run_stage(stage, work, loaded)
            records[stage.name] = record
            skipped += [] if ran else [stage.name]
            seconds = f"{time.monotonic() - began:.1f} s" if ran else "unchanged, skipped"
            progress.note(f"[{n}/{len(stages)}] {stage.name}: {seconds}{brief(record.figures)}")
            if stage.name == "gate" and record.figures.get("verdict") != "pass":
                raise GateRefused(_refusal(directory, record))
    finally:
        write_report(loaded, directory)
    return Ran(directory, records, tuple(skipped))


def _refusal(directory: Path, record: StageRecord) -> str:
    reasons = record.figures.get("reasons") or ["no reason is on record"]
    verdict = record.figures.get("verdict")
    return f"gate: {verdict}: {'; '.join(map(str, reasons))}. What was trained is kept in {directory}; nothing is packaged or promoted"


def brief(figures: Mapping[str, Any]) -> str:
    """The first few numbers of a stage, for a line."""
    shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items() if isinstance(v, int | float | str)]
    return "; " + ", ".join(shown[:5]) if shown else ""


# -- one stage ----------------------------------------------------------------------------------------------------------


def run_stage(stage: Stage, work: Workspace, loaded: LoadedTrain) -> tuple[StageRecord, bool]:
    """The record of a finished stage, and whether it had to run."""
    inputs = stage_inputs(stage, work, loaded.config)
    config_sha = section_hash(stage, loaded)
    path = work.record_path(stage.name)

    def same(record: StageRecord | None) -> bool:
        return record is not None and dict(record.inputs) == inputs and record.config_sha256 == config_sha

    earlier.mend(work)
    before, whole = read_record(path), earlier.unchanged(work)
    if not same(before) and same(kept := earlier.unchanged(earlier.aside(work))):
        earlier.bring_back(work)
        before = whole = kept
    if whole is not None and same(whole):
        return whole, False
    fresh = before is None or before.status == "done" or not same(before)
    if fresh and whole is not None:
        earlier.keep(work)
    elif fresh:
        earlier.empty(work)
    began = _now()
    record = StageRecord(stage.name, "running", inputs, config_sha, {}, {}, work.seed, versions(), began, None)
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
        _write(path, record)
        result = call(stage, work, loaded.config)
        outputs = {name: _hashed(work, name) for name in sorted(result.outputs)}
    except AtlasError as error:
        refused_validation = stage.name == "validate" and (work.folder / "validation.json").is_file()  # it is whole, and says more
        if not fresh or not isinstance(error, UserError) or refused_validation:
            _write(path, StageRecord(stage.name, "failed", inputs, config_sha, {}, {}, work.seed, versions(), began, _now(), str(error)))
        elif not earlier.bring_back(work):
            earlier.empty(work)
        raise
    except OSError as error:
        raise refused(work.folder, error) from error
    done = StageRecord(stage.name, "done", inputs, config_sha, outputs, dict(result.figures), work.seed, versions(), began, _now())
    _write(path, done)
    earlier.drop(work)
    return done, True


def call(stage: Stage, work: Workspace, config: TrainConfig) -> StageResult:
    """The stage itself: in this process, or in as many as the configuration asks for, with a vllm server beside it where it wants one."""
    if stage.name == "train" and config.vllm.mode == "server":
        model = str(resolve("gepa_atlas.train.weights:base_folder")(work, config))
        with launch.vllm_server(config, model, work.output_dir, work.progress) as url:
            return _called(stage, work, config, url)
    return _called(stage, work, config, None)


def _called(stage: Stage, work: Workspace, config: TrainConfig, url: str | None) -> StageResult:
    if stage.launched and config.launch.backend == "accelerate":
        return launch.run_launched(stage, work, config, url)
    return here(stage, work, launch.with_url(config, url))


def here(stage: Stage, work: Workspace, config: TrainConfig) -> StageResult:
    """The stage in this process."""
    if stage.seeded:
        seed(config.seed)
    function: Callable[[Workspace, TrainConfig], StageResult] = resolve(stage.entry)
    return function(work, config)


def resolve(entry: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module, _, name = entry.partition(":")
    found: Callable[..., Any] = vars(importlib.import_module(module))[name]
    return found


def stage_inputs(stage: Stage, work: Workspace, config: TrainConfig) -> dict[str, str]:
    """name -> hash of everything that the stage reads."""
    found: dict[str, str] = {}
    names = [s.name for s in chain(config)]
    for before in stage.after:
        if before in names:
            found |= {f"{before}/{path}": sha for path, sha in work.finished(before).outputs.items()}
    for entry in stage.inputs:
        found |= resolve(entry)(work, config)
    return found


def section_hash(stage: Stage, loaded: LoadedTrain) -> str:
    """Digest of the part of the configuration that the stage reads, without keys that change only how fast or where."""
    tree: dict[str, Any] = {}
    for name in stage.reads:
        section, _, key = name.partition(".")
        value = loaded.resolved[section][key] if key else loaded.resolved[section]
        tree[name] = {k: v for k, v in value.items() if k not in FREE.get(name, ())} if isinstance(value, dict) else value
    return digest({"stage": stage.name, "seed": loaded.config.seed, "sections": tree})


def _hashed(work: Workspace, name: str) -> str:
    path = work.folder / name
    if not path.is_file():
        raise DataError(f"{path}: stage {work.stage} names it as an output and has not written it; please report this")
    return sha256_file(path)


def _write(path: Path, record: StageRecord) -> None:
    write_json(path, asdict(record))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


# -- a run that was begun ------------------------------------------------------------------------------------------------


def load_resolved(directory: Path) -> LoadedTrain:
    """The configuration that a directory was last run with, from its grpo.json."""
    path = directory / MARK
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); this is no training run of `gepa-atlas grpo run`") from None
    return placed(from_resolved(tree, path), directory.absolute())
