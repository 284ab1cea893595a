"""What a stage of training is given and gives back: one directory, one folder a stage, `stage.json` written last.

Layout of `output_dir`: optimize/, handoff/ (export and validate), baseline/, sft/, preference/, train/, distill/, eval/, gate/, bundle/.
A folder without a `stage.json` whose status is `done` is unfinished work: its stage may go on from what it finds there, or begin again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from gepa_atlas.errors import ConfigError

FOLDERS = {
    "optimize": "optimize", "export": "handoff", "validate": "handoff", "baseline": "baseline", "sft": "sft",
    "preference": "preference", "train": "train", "distill": "distill", "eval": "eval", "gate": "gate", "package": "bundle",
}  # fmt: skip
RECORDS = {"validate": "validate.stage.json", "package": "../bundle.stage.json"}  # the others: stage.json; a bundle holds what ships only


class Progress(Protocol):
    """Where a stage says how far it is. Both may be called from any thread, and as often as a stage likes."""

    def note(self, text: str) -> None:
        """One line that stays: a decision, a warning."""

    def step(self, what: str, done: int, total: int | None) -> None:
        """`done` of `total` (None: unknown) units of `what`; a later call replaces an earlier one."""


class Silent:
    """A Progress that says nothing."""

    def note(self, text: str) -> None:
        pass

    def step(self, what: str, done: int, total: int | None) -> None:
        pass


@dataclass(frozen=True)
class StageResult:
    """What a stage made. `outputs` are files below its folder (relative paths), hashed by the runner; `figures` are JSON values."""

    outputs: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRecord:
    """A `stage.json` as it was read."""

    stage: str
    status: Literal["running", "done", "failed"]
    inputs: Mapping[str, str]  # name -> sha256 of a file, or the identity of what is no file
    config_sha256: str
    outputs: Mapping[str, str]  # path relative to the stage's folder -> sha256
    figures: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    started: str
    ended: str | None
    error: str | None = None


@dataclass(frozen=True)
class Workspace:
    """The directory of one training run as one stage sees it.

    `base_dir` is where relative input paths of the configuration start: the directory of its file.
    """

    output_dir: Path
    stage: str
    seed: int
    base_dir: Path
    progress: Progress = field(default_factory=Silent)

    @property
    def folder(self) -> Path:
        """This stage's own folder; the runner has made it."""
        return self.folder_of(self.stage)

    @property
    def cache_dir(self) -> Path:
        """For answers that any stage may use again (students, judges); never an output."""
        return self.output_dir / "cache"

    def folder_of(self, stage: str) -> Path:
        return self.output_dir / FOLDERS[stage]

    def record_path(self, stage: str) -> Path:
        return (self.folder_of(stage) / RECORDS.get(stage, "stage.json")).resolve()

    def input_path(self, name: str) -> Path:
        """A path that the configuration names."""
        return self.base_dir / name

    def finished(self, stage: str) -> StageRecord:
        """The record of an earlier stage. Raises ConfigError where it has not ended well."""
        record = read_record(self.record_path(stage))
        if record is None or record.status != "done":
            raise ConfigError(
                f"{self.output_dir}: stage {stage} is not done, and {self.stage} needs it; run `gepa-atlas grpo run` or that stage first"
            )
        return record

    def is_done(self, stage: str) -> bool:
        record = read_record(self.record_path(stage))
        return record is not None and record.status == "done"


def read_record(path: Path) -> StageRecord | None:
    """The record in a file; None where there is none or it cannot be read (a stage then runs again)."""
    try:
        return StageRecord(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
