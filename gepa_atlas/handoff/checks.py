"""The checks of validation that need no tokenizer. Each watches the rows go by once, then says what it found."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gepa_atlas.handoff.config import ValidateConfig
from gepa_atlas.handoff.contamination import Held
from gepa_atlas.handoff.duplicates import near, normal
from gepa_atlas.handoff.leaks import leaks
from gepa_atlas.handoff.prompts import read_completion, well_formed
from gepa_atlas.handoff.report import Report
from gepa_atlas.handoff.schema import DpoRow, GrpoRow, KtoRow, PromptRow, Row, SftRow, TaskRow, TraceRecord, Turn
from gepa_atlas.types import Example

TRAINED = ("sft", "dpo", "kto", "grpo_train")  # sets whose rows change weights


class Watcher(Protocol):
    def row(self, name: str, place: str, row: Row) -> None:
        """A valid row of set `name`, in the order of the files; tasks come first."""
        ...

    def tell(self, report: Report) -> None: ...


def completions(row: Row) -> Iterable[tuple[str, bool]]:
    """What the teacher is taught by a row, and whether it is taught to write it (or not to)."""
    if isinstance(row, SftRow | KtoRow):
        yield row.completion[0].content if row.completion else "", not isinstance(row, KtoRow) or row.label
    elif isinstance(row, DpoRow):
        yield row.chosen[0].content if row.chosen else "", True
        yield row.rejected[0].content if row.rejected else "", False


def prompt_of(row: Row) -> Sequence[Turn]:
    return row.prompt if isinstance(row, SftRow | KtoRow | DpoRow | GrpoRow) else ()


def task_of(row: Row) -> str | None:
    return None if isinstance(row, PromptRow) else str(row.model_dump(include={"task_id"})["task_id"])


@dataclass
class Splits:
    """Splits are those of tasks.jsonl, test is in no set, val in none that trains, and no trace is there twice."""

    tasks: Mapping[str, TaskRow]
    traces: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    val: list[str] = field(default_factory=list)

    def row(self, name: str, place: str, row: Row) -> None:
        if isinstance(row, TraceRecord):
            self.traces[row.trace_id] += 1
        task_id = task_of(row)
        if task_id is None or isinstance(row, TaskRow):
            return
        task = self.tasks.get(task_id)
        if task is None:
            self.unknown.append(f"{place} {task_id}")
            return
        said = row.model_dump(include={"split"}).get("split", task.split)
        if said != task.split:
            self.moved.append(task_id)
        if "test" in (said, task.split):
            self.test.append(task_id)
        elif "val" in (said, task.split) and name in TRAINED:
            self.val.append(task_id)

    def tell(self, report: Report) -> None:
        twice = [name for name, count in self.traces.items() if count > 1]
        report.add("test_exported", "error", self.test, "rows about test tasks; test is for the gate alone: export again")
        report.add("val_trained", "error", self.val, "val tasks in a set that trains; val is for evaluation during training: export again")
        report.add("split_changed", "error", self.moved, "a row names another split than tasks.jsonl; splits are inherited: export again")
        report.add("unknown_task", "error", self.unknown, "rows about tasks that tasks.jsonl has not; export again")
        report.add("duplicate_trace_id", "error", twice, "a trace is in traces.jsonl more than once; export again")


@dataclass
class Tasks:
    """No task in two splits, no task text under two ids, no near copies."""

    config: ValidateConfig
    splits: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    spellings: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))  # text -> id -> split
    texts: dict[str, str] = field(default_factory=dict)

    def row(self, name: str, place: str, row: Row) -> None:
        if isinstance(row, TaskRow):
            self.splits[row.task_id].add(row.split)
            text = f"{row.question}\n{row.context}"
            self.spellings[normal(text)][row.task_id] = row.split
            self.texts[row.task_id] = text

    def tell(self, report: Report) -> None:
        both = [name for name, found in self.splits.items() if len(found) > 1]
        report.add("task_in_two_splits", "error", both, "a task is in more than one split; a task belongs to one")
        crossing = [" = ".join(ids) for ids in self.spellings.values() if len(ids) > 1 and len(set(ids.values())) > 1]
        inside = [" = ".join(ids) for ids in self.spellings.values() if len(ids) > 1 and len(set(ids.values())) == 1]
        report.add("same_task_two_splits", "error", crossing, "the same question under two ids, in different splits; keep one of them")
        report.add("same_task_two_ids", "warning", inside, "the same question under two ids; it counts twice")
        split = {name: next(iter(found)) for name, found in self.splits.items()}
        alike = [
            pair
            for pair in near(self.texts.items(), self.config.near_duplicate)
            if normal(self.texts[pair[0]]) != normal(self.texts[pair[1]])
        ]
        across = [f"{a} ~ {b}" for a, b in alike if split[a] != split[b]]
        within = [f"{a} ~ {b}" for a, b in alike if split[a] == split[b]]
        at = f"at least {self.config.near_duplicate:g} alike in 5-grams"
        report.add("near_duplicate_across_splits", "warning", across, f"tasks of two splits are {at}: the held-out figures may be too good")
        report.add("near_duplicate", "warning", within, f"tasks of one split are {at}: they count as several, and are hardly that")


@dataclass
class Teaching:
    """What the teacher is taught to write: present, in form, once, without the answer, without what it will be tested on."""

    tasks: Mapping[str, TaskRow]
    protocol: str
    config: ValidateConfig
    held: Held
    empty: list[str] = field(default_factory=list)
    form: list[str] = field(default_factory=list)
    leaky: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    same: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    prompts: list[str] = field(default_factory=list)

    def row(self, name: str, place: str, row: Row) -> None:
        if isinstance(row, PromptRow) and (row.role or row.pareto):
            text = "\n".join([row.system, *row.texts.values(), row.demos_json])
            self.prompts += [f"prompt {row.candidate_id} repeats {task}: {what!r}" for task, what in self.held.repeated(text)]
        task_id = task_of(row)
        for text, wanted in completions(row):
            assert task_id is not None
            here = f"{name} {task_id}"
            self.same[name, task_id, normal(text)] += not isinstance(row, DpoRow)
            if not text.strip():
                self.empty.append(here)
            elif wanted:
                self._wanted(here, task_id, text, "\n".join(turn.content for turn in prompt_of(row) if turn.role == "user"))
            self.repeats += [f"{here} repeats {task}: {what!r}" for task, what in self.held.repeated(text)]
        if name in TRAINED and not prompt_of(row):
            self.empty.append(place)

    def _wanted(self, here: str, task_id: str, text: str, asked: str) -> None:
        if not well_formed(text, self.protocol):
            self.form.append(here)
        task = self.tasks.get(task_id)
        if task is not None and leaks(read_completion(text), example(task), asked, self.protocol):
            self.leaky.append(here)

    def tell(self, report: Report) -> None:
        n, leak = self.config.ngram, "error" if self.config.leaks == "error" else "warning"
        twice = [f"{name} {task}" for (name, task, _), count in self.same.items() if count > 1]
        report.add("empty", "error", self.empty, "a row has no prompt or nothing for the teacher to say")
        report.add("contaminated_prompt", "error", self.prompts, f"a teacher prompt holds {n} words or a long answer of a held-out task")
        report.add(
            "contaminated_row", "error", self.repeats, f"a completion holds {n} words or a long answer of a held-out task; export again"
        )
        report.add(
            "answer_leak", "error" if leak == "error" else "warning", self.leaky,
            "guidance states the gold answer, so the student copies it; leave these lessons out",
        )  # fmt: skip
        report.add("exact_duplicate", "warning", twice, "the same completion for the same task more than once in a set; it weighs double")
        report.add("teacher_form", "warning", self.form, "a completion has not the form that the teacher's prompt asks for")


@dataclass
class Lessons:
    """traces.jsonl as a whole: what was judged, what can be learnt, who tokenised."""

    config: ValidateConfig
    total: int = 0
    failed: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    deltas: dict[str, set[float]] = field(default_factory=lambda: defaultdict(set))
    train: int = 0
    tokenizers: dict[tuple[str, str], str] = field(default_factory=dict)  # (tokenizer, model) -> first trace

    def row(self, name: str, place: str, row: Row) -> None:
        if not isinstance(row, TraceRecord):
            return
        self.total += 1
        if row.rim.status == "failed":
            self.failed.append(row.trace_id)
        if row.truncated:
            self.cut.append(row.trace_id)
        if row.split == "train":
            self.train += 1
            if row.delta is not None:
                self.deltas[row.task_id].add(row.delta)
        if row.tokens is not None:
            self.tokenizers.setdefault((row.tokens.tokenizer_sha256, row.tokens.model_sha256), row.trace_id)

    def tell(self, report: Report) -> None:
        share, most = len(self.failed) / max(1, self.total), self.config.max_failed_share
        report.add(
            "judge_failed", "error", self.failed if share > most else [],
            f"{share:.0%} of the lessons have no score (limit {most:.0%}): mend the judges and search again, or raise max_failed_share",
            {"share": round(share, 6), "unscored": len(self.failed)},
        )  # fmt: skip
        cut = len(self.cut) / max(1, self.total)
        report.add("truncated", "warning", self.cut, f"{cut:.0%} of the second attempts were cut at a token limit: raise the student's")
        several = list(self.tokenizers.values())
        report.add("mixed_tokenizers", "error", several[1:] and several, "token blocks of different tokenizers or models; keep one of them")
        if not self.train:
            report.skip("learnable", "warning", "no lesson of a train task is in the run")
            return
        able = [task for task, values in self.deltas.items() if len(values) > 1]
        report.add(
            "learnable", "warning", [] if len(able) >= self.config.min_learnable else ["train"],
            f"{len(able)} train tasks have lessons that differ in reward ({self.config.min_learnable} asked): there is little to learn",
            {"tasks": len(able), "of": len(self.deltas)},
        )  # fmt: skip


def example(task: TaskRow) -> Example:
    return Example(task.task_id, task.question, tuple(task.answers), task.context, task.split)


def manifest_checks(report: Report, manifest: Mapping[str, Any], digests: Mapping[str, str], rows: Mapping[str, int], *, sft: bool) -> None:
    """The files are those that the manifest was written for, and there is something in them."""
    said = manifest.get("files", {})
    changed = [name for name, digest in digests.items() if said.get(name) != digest]
    report.add("manifest", "error", changed, "a file is not the one that manifest.json was written for; export again")
    sft = sft and manifest.get("source", {}).get("kind") != "sessions"  # those have no baseline: GRPO begins without a warm-up
    nothing = [name for name in ("grpo_train", *(["sft"] if sft else [])) if not rows.get(name)]
    report.add("rows", "error", nothing, "nothing is left to train on; loosen the filters of handoff, or set sft.enabled: false")
    freedom = manifest.get("noise", {}).get("degrees_of_freedom", 0)
    report.add(
        "noise", "warning", [] if freedom else ["repeats"],
        "the run has no repeats, so its noise is not known and the bounds are too good; the baseline stage will measure it",
    )  # fmt: skip
