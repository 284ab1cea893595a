"""The stage `validate`: is a hand-off fit to train on? Named checks over its files, written to validation.json.

An error ends the stage with one line that names the check and the ids; a warning is written down. The files are looked at as they lie
there, whoever wrote them: what the exporter promises is checked again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from gepa_atlas.datafile import read_rows
from gepa_atlas.errors import DataError
from gepa_atlas.handoff import checks
from gepa_atlas.handoff.config import Sections, ValidateConfig
from gepa_atlas.handoff.contamination import Held
from gepa_atlas.handoff.report import Report
from gepa_atlas.handoff.schema import ROWS, GrpoRow, Row, SftRow, TaskRow, TraceRecord
from gepa_atlas.handoff.tokens import CHECKS, Counted, Lengths, Tokenizer
from gepa_atlas.handoff.workspace import StageResult, Workspace, sha256_file
from gepa_atlas.secrets import MASK, scrub
from gepa_atlas.store.exports import write_json
from gepa_atlas.types import Example

OUTPUT = "validation.json"
_RANGE = {"finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def inputs(work: Workspace, config: Sections) -> dict[str, str]:
    """Hashes of further files that the configuration names."""
    return {name: sha256_file(path) for name in config.validation.against if (path := work.input_path(name)).is_file()}


def run(work: Workspace, config: Sections, tokenizer: Tokenizer | None = None) -> StageResult:
    """Check the hand-off of this training run. `tokenizer`: of the model to be trained; without one, checks in tokens are skipped.

    Raises DataError for the first check of severity error that failed; validation.json is written either way.
    """
    lengths = Lengths(
        config.model.context,
        config.grpo.max_completion_length if config.grpo.enabled else None,
        config.sft.max_length,
    )
    against = [task for name in config.validation.against for task in _against(work.input_path(name))]
    look = Validation(work.folder, config.validation, tokenizer, lengths, config.sft.enabled, against)
    report = look.report()
    write_json(work.folder / OUTPUT, report.to_json())
    for check in report.failed("warning"):
        work.progress.note(f"warning, {check.name}: {check.count} found ({', '.join(check.ids)}): {check.said}")
    report.refuse()
    return StageResult((OUTPUT,), {"errors": 0, "warnings": len(report.failed("warning")), "checks": len(report.checks)})


def _against(path: Path) -> list[Example]:
    """Questions and answers of another file: rows with `question`, and `answer` or `answers`. DataError names the first that has none."""
    found = []
    for row in read_rows(path):
        question = row.value.get("question") if isinstance(row.value, dict) else None
        if not isinstance(question, str):
            raise DataError(f"validation.against: {row.place}: has no text under question; each row needs one")
        answers = row.value.get("answers", row.value.get("answer"))
        texts = answers if isinstance(answers, list) else [answers]
        found.append(Example(row.place, question, tuple(str(text) for text in texts if text is not None), split="test"))
    return found


@dataclass
class Validation:
    """One look at the files of a folder."""

    folder: Path
    config: ValidateConfig
    tokenizer: Tokenizer | None = None
    lengths: Lengths = Lengths()
    sft: bool = True
    against: Sequence[Example] = ()
    broken: dict[str, list[str]] = field(default_factory=lambda: {"schema": [], "range": []})
    first: dict[str, str] = field(default_factory=dict)  # the first complaint of each kind
    secret: list[str] = field(default_factory=list)

    def report(self) -> Report:
        """Every check. Raises DataError when there is no hand-off in the folder."""
        manifest = self._manifest()
        tasks = {row.task_id: row for _, row in self.rows("tasks") if isinstance(row, TaskRow)}
        self.broken, self.secret = {"schema": [], "range": []}, []  # they are found again below
        held = [checks.example(task) for task in tasks.values() if task.split != "train"]
        known = Held([*held, *self.against], [checks.example(t) for t in tasks.values() if t.split == "train"], self.config.ngram)
        protocol = str(manifest.get("source", {}).get("protocol", ""))
        watchers: list[checks.Watcher] = [
            checks.Splits(tasks),
            checks.Tasks(self.config),
            checks.Teaching(tasks, protocol, self.config, known),
            checks.Lessons(self.config),
        ]
        counted = None if self.tokenizer is None else Counted(self.tokenizer, self.lengths)
        rows = {name: self._watch(name, watchers, counted) for name in sorted(ROWS, key=lambda n: n != "tasks")}
        report = Report()
        for kind in ("schema", "range"):
            said = self.first.get(kind, "rows are as docs/handoff.md says")
            report.add(kind, "error", self.broken[kind], f"{said}; export again")
        digests = {f"{name}.jsonl": sha256_file(self.folder / f"{name}.jsonl") for name in ROWS}
        checks.manifest_checks(report, manifest, digests, rows, sft=self.sft)
        for watcher in watchers:
            watcher.tell(report)
        report.add("secrets", "error", self.secret, "a text has the shape of a key; take it out at its source and export again")
        if counted is not None:
            counted.tell(report)
        else:
            for name in CHECKS:
                report.skip(name, "warning" if name == "completion_length" else "error", "no tokenizer was given")
        return report

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        missing = [name for name in ("manifest.json", *(f"{name}.jsonl" for name in ROWS)) if not (self.folder / name).is_file()]
        if missing:
            raise DataError(f"{self.folder / missing[0]}: there is no such file; run `gepa-atlas grpo export` first")
        try:
            value = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error}); export again") from None
        if not isinstance(value, dict):
            raise DataError(f"{path}: holds a {type(value).__name__}, not an object; export again")
        return value

    def _watch(self, name: str, watchers: Sequence[checks.Watcher], counted: Counted | None) -> int:
        count = 0
        for place, row in self.rows(name):
            count += 1
            for watcher in watchers:
                watcher.row(name, place, row)
            if counted is not None and isinstance(row, GrpoRow):
                counted.prompt(f"{name} {row.task_id}", _turns(row.prompt))
            elif counted is not None and isinstance(row, SftRow) and row.completion:
                counted.row(f"{name} {row.task_id}", _turns(row.prompt), _turns(row.completion)[0])
            elif counted is not None and isinstance(row, TraceRecord) and row.tokens is not None:
                counted.block(row.trace_id, row.tokens.tokenizer_sha256)
        return count

    def rows(self, name: str) -> Iterator[tuple[str, Row]]:
        """Valid rows of a set with their places; the others are remembered under what is wrong with them."""
        path = self.folder / f"{name}.jsonl"
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                place = f"{path.name}:{number}"
                row = self._row(name, raw, place)
                if row is not None:
                    yield place, row

    def _row(self, name: str, raw: bytes, place: str) -> Row | None:
        try:
            text = raw.decode("utf-8")
            if scrub(text).count(MASK) > text.count(MASK):
                self.secret.append(place)
            return ROWS[name].model_validate(json.loads(text, parse_constant=_constant), strict=True)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in found["loc"])
            self._complain(
                "range" if found["type"] in _RANGE else "schema", place, f"{where}: {found['msg'].removeprefix('Value error, ')}"
            )
        except _NotFinite as error:
            self._complain("range", place, str(error))
        except (ValueError, RecursionError) as error:
            self._complain("schema", place, f"not a JSON object ({error})")
        return None

    def _complain(self, kind: str, place: str, said: str) -> None:
        self.broken[kind].append(place)
        self.first.setdefault(kind, said)


class _NotFinite(Exception):
    pass


def _constant(name: str) -> NoReturn:
    raise _NotFinite(f"{name} is no number")


def _turns(turns: Sequence[Any]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]
