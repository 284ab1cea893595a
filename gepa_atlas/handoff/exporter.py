"""The stage `export`: lessons of a run become training sets.

read the source    once for what selection needs, once more for what is written; never the whole file at a time
rank, cap, pair    by the lower bound of delta (evidence.py, selection.py)
write              every file beside its place, moved there together; manifest.json last, with hashes and with what each rule removed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.handoff import review, rows, selection
from gepa_atlas.handoff.config import ExportConfig, Sections
from gepa_atlas.handoff.contamination import Held
from gepa_atlas.handoff.evidence import Evidence, Fact
from gepa_atlas.handoff.files import Files
from gepa_atlas.handoff.lines import Line, trace_id, understood
from gepa_atlas.handoff.prompts import written
from gepa_atlas.handoff.records import Maker, fact_of
from gepa_atlas.handoff.schema import MANIFEST_SCHEMA, TraceRecord
from gepa_atlas.handoff.source import Source, open_source
from gepa_atlas.handoff.workspace import StageResult, Workspace, sha256_file
from gepa_atlas.types import Example


def source_path(work: Workspace, config: Sections) -> Path:
    """What is exported. ConfigError when the configuration does not say."""
    if config.handoff.path is None:
        raise ConfigError("handoff.path: says where the lessons are; give --export-path TRACES (a traces.jsonl, or the directory of a run)")
    path = work.input_path(config.handoff.path)
    if not path.exists():
        raise DataError(f"handoff.path: there is no {path}; give a traces.jsonl, or the directory of a finished run")
    return path


def inputs(work: Workspace, config: Sections) -> dict[str, str]:
    """Hashes of what the stage reads beside its section of the configuration."""
    path = source_path(work, config)
    directory, traces = (path, path / "traces.jsonl") if path.is_dir() else (path.parent, path)
    names = {"traces": traces}
    if (directory / "run.db").is_file() and traces.name == "traces.jsonl":
        names |= {"run.db": directory / "run.db", "config.json": directory / "config.json", "prompts": directory / "optimized_prompts.json"}
    known = {name: sha256_file(file) for name, file in names.items() if file.is_file()}
    return known if config.handoff.memory is None else known | {"reviews": review.digest_of(opened(work, config))}


def opened(work: Workspace, config: Sections) -> Source:
    """The source that the configuration names, with review states."""
    source = open_source(source_path(work, config), config.handoff.eval_ratio)
    address = config.handoff.memory
    if address is None:
        return source
    return review.from_memory(source, address if "://" in address else str(work.input_path(address)))


def run(work: Workspace, config: Sections) -> StageResult:
    """Export. Raises DataError or ConfigError, one line, and leaves what was there before."""
    source = opened(work, config)
    for note in source.unknown:
        work.progress.note(note)
    export = Export(source, config.handoff, work.seed)
    export.read(work)
    export.choose(sft=config.sft.enabled)
    test = frozenset(task.id for task in source.tasks.values() if task.split == "test")
    with Files(work.folder, config.handoff.format, test) as files:
        export.write(files, work)
    figures = {name: count for name, count in files.rows.items()}
    return StageResult(tuple(sorted(files.digests)), figures)


_VAL = "split_val"  # a val lesson that is not exported still says what its candidate is worth


@dataclass
class Export:
    """One export on its way: what was read, what was chosen."""

    source: Source
    config: ExportConfig
    seed: int
    removed: Counter[str] = field(default_factory=Counter)  # lessons that do not even get into traces.jsonl
    read_count: int = 0
    facts: list[Fact] = field(default_factory=list)
    attempts: dict[str, str] = field(default_factory=dict)  # task -> a first attempt

    def read(self, work: Workspace) -> None:
        """First pass: facts, not texts."""
        tasks = self.source.tasks.values()
        self.held = Held([t for t in tasks if t.split != "train"], [t for t in tasks if t.split == "train"], self.config.ngram)
        seen: set[str] = set()
        for found in self.source.lessons():
            line, self.read_count = found.line, self.read_count + 1
            why = self.refused(line, seen)
            if why is not None:
                self.removed[why] += 1
            if why not in (None, _VAL):
                continue
            task = self.source.tasks[line["example"]["id"]]
            with understood(found.place):
                self.facts.append(fact_of(line, task, self.held))
            attempt = line["baseline"]["output"]
            if attempt is not None:
                self.attempts.setdefault(task.id, attempt)
            if self.read_count % 500 == 0:
                work.progress.step("lessons read", self.read_count, None)
        self.evidence = Evidence(self.facts, self.config.z)

    def refused(self, line: Line, seen: set[str]) -> str | None:
        """Why a lesson stays at home; remembers the ones that do not."""
        split = self.source.tasks[line["example"]["id"]].split
        if split == "test":
            return "split_test"
        why = review.refused(line, self.config)
        if why is not None:
            return why
        name = trace_id(line)
        if name in seen:
            return "duplicate"
        seen.add(name)
        return _VAL if split == "val" and not self.config.include_val else None

    # -- choice -------------------------------------------------------------------------------------------------------

    def choose(self, *, sft: bool) -> None:
        config, evidence = self.config, self.evidence
        train = [task for task in self.source.tasks.values() if task.split == "train"]
        if not train:
            raise DataError(f"{self.source.traces}: no train task in it, so there is nothing to train on; export a run with a train split")
        self.curriculum = selection.curriculum(train, evidence, config, self.seed)
        if not self.curriculum.weights:
            raise DataError(
                f"{self.source.traces}: no task is left to train on ({_counted(self.curriculum.removed)}); "
                "take harder tasks, or raise handoff.explore_share"
            )
        wanted = frozenset(task.id for task in train)
        self.usable = selection.usable(evidence.played, config, wanted)
        self.top = selection.top(self.usable.kept, config)
        self.pairs = selection.pairs(self.usable.kept, config)
        self.labelled = selection.labelled(self.usable.kept, config, evidence.bases)
        self.from_candidates = self.candidate_rows(train)
        if sft and not self.top.kept and not self.from_candidates.kept and self.source.kind != "sessions":
            why = _counted(self.usable.removed, self.top.removed, self.removed)
            looser = f"lower handoff.min_delta ({config.min_delta:g}) or handoff.z ({config.z:g})"
            if config.review != "off" and not self.usable.removed:
                looser = f"review lessons, or loosen handoff.review ({config.review})"
            raise DataError(f"{self.source.traces}: no lesson is good enough for SFT ({why}); {looser}, or set sft.enabled: false")

    def candidate_rows(self, train: list[Example]) -> selection.Selection:
        """Under `playbook`, train tasks without a lesson of their own get the guidance of the candidates that did best on val."""
        if self.source.protocol != "playbook":
            return selection.Selection(())
        taught = {played.task_id for played in self.evidence.played}
        alone = [task for task in train if task.id not in taught and task.id in self.curriculum.weights]
        members = self.source.members
        standings = {name: standing for name, standing in self.evidence.standings.items() if name in members}
        guidances = {name: rows.playbook(members[name].candidate) for name in standings}
        dirty = {name: bool(self.held.repeated(written(guidance))) for name, guidance in guidances.items()}
        offered = selection.by_candidate(standings, alone)
        tried = [rows.at_task(one, guidances[one.candidate_id], self.source.tasks[one.task_id], dirty[one.candidate_id]) for one in offered]
        clean = selection.usable(tried, self.config, frozenset(task.id for task in alone))
        best = selection.top(clean.kept, self.config)
        return selection.Selection(best.kept, dict(clean.removed) | dict(best.removed))

    # -- files --------------------------------------------------------------------------------------------------------

    def write(self, files: Files, work: Workspace) -> None:
        made = rows.Rows(self.source, self.config, self.evidence, self.attempts)
        needed = {p.trace_id for p in self.top.kept} | {p.trace_id for p, _ in self.labelled}
        needed |= {p.trace_id for pair in self.pairs for p in (pair.chosen, pair.rejected)}
        files.write("traces", self.records(needed, made.completions, work))
        files.write("prompts", made.prompts())
        files.write("baselines", made.baselines())
        files.write("tasks", made.tasks())
        files.write("sft", made.sft(self.top.kept, self.from_candidates.kept))
        files.write("dpo", made.dpo(self.pairs))
        files.write("kto", made.kto(self.labelled))
        files.write("grpo_train", made.grpo(self.curriculum.weights))
        val = {task.id: 1.0 for task in self.source.tasks.values() if task.split == "val"} if self.config.include_val else {}
        files.write("grpo_val", made.grpo(val))
        files.write_json("manifest.json", self.manifest(files, made))

    def records(self, needed: set[str], completions: dict[str, str], work: Workspace) -> Iterator[TraceRecord]:
        """Second pass. Completions of lessons that become rows are kept on the way."""
        maker, seen = Maker(self.source, self.evidence, self.config.teacher), set[str]()
        for at, found in enumerate(self.source.lessons(), 1):
            line = found.line
            if self.refused(line, seen) is not None:
                continue
            with understood(found.place):
                record = maker.record(line)
            if record.trace_id in needed:
                completions[record.trace_id] = record.teacher_completion
            if at % 500 == 0:
                work.progress.step("lessons written", at, self.read_count)
            yield record

    def manifest(self, files: Files, made: rows.Rows) -> dict[str, Any]:
        source, noise = self.source, self.evidence.noise
        exported = [fact for fact in self.facts if fact.split != "val" or self.config.include_val]
        return {
            "schema": MANIFEST_SCHEMA,
            "source": {
                "kind": source.kind,
                "file": source.traces.name,
                "sha256": sha256_file(source.traces),
                "protocol": source.protocol,
                **dict(source.run),
            },
            "prompt": {"mode": self.config.prompt_mode, "choice": self.config.prompt, **made.lineage()},
            "unknown": list(source.unknown),
            "noise": {
                "repeat_sd": None if noise[0] is None else round(noise[0] ** 0.5, 9),
                "degrees_of_freedom": noise[1],
                "z": self.config.z,
            },
            "settings": self.config.model_dump(mode="json", exclude={"path"}),
            "seed": self.seed,
            "lessons": {
                "read": self.read_count,
                "removed": dict(sorted(self.removed.items())),
                "exported": len(exported),
                "by_split": dict(sorted(Counter(fact.split for fact in exported).items())),
                "by_status": dict(sorted(Counter("scored" if fact.scored else "unscored" for fact in exported).items())),
            },
            "sft": {
                "guidances": len(self.evidence.played),  # guidance x task, repeats taken together
                "removed": dict(sorted((Counter(self.usable.removed) + Counter(self.top.removed)).items())),
                "kept": len(self.top.kept),
                "from_candidates": {
                    "removed": dict(sorted(self.from_candidates.removed.items())),
                    "kept": len(self.from_candidates.kept),
                },
            },
            "tasks": dict(sorted(Counter(task.split for task in source.tasks.values()).items())),
            "grpo": {
                "tasks": sum(task.split == "train" for task in source.tasks.values()),
                "removed": dict(sorted(self.curriculum.removed.items())),
                "kept": len(self.curriculum.weights),
            },
            "rows": dict(sorted(files.rows.items())),
            "files": dict(sorted(files.digests.items())),
        }


def _counted(*removed: Mapping[str, int]) -> str:
    total: Counter[str] = Counter()
    for part in removed:
        total.update(part)
    return ", ".join(f"{count} {name}" for name, count in total.most_common()) or "there was none"
