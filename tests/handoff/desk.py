"""What the tests of the hand-off share: one call that exports, one that validates, and ways to read what came out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gepa_atlas.handoff import exporter, validator
from gepa_atlas.handoff.config import ExportConfig, ValidateConfig
from gepa_atlas.handoff.tokens import Tokenizer
from gepa_atlas.handoff.workspace import StageResult, Workspace

ROOT = Path(__file__).parents[2]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Model:
    context: int = 2048


@dataclass(frozen=True)
class Sft:
    enabled: bool = True
    max_length: int | None = None


@dataclass(frozen=True)
class Grpo:
    enabled: bool = True
    max_completion_length: int = 128


@dataclass(frozen=True)
class Settings:
    """The sections of a training configuration that the hand-off reads."""

    handoff: ExportConfig = ExportConfig()
    validation: ValidateConfig = ValidateConfig()
    model: Model = Model()
    sft: Sft = Sft()
    grpo: Grpo = Grpo()


@dataclass
class Notes:
    said: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.said.append(text)

    def step(self, what: str, done: int, total: int | None) -> None:
        pass


class Words:
    """A tokenizer of words, with a template of three marks; `dumb` forgets what the assistant said."""

    sha256 = "words"

    def __init__(self, dumb: bool = False) -> None:
        self._dumb = dumb
        self._ids: dict[str, int] = {}

    def _of(self, text: str) -> list[int]:
        return [self._ids.setdefault(word, len(self._ids)) for word in text.split()]

    def prompt(self, turns: Any) -> list[int]:
        return [n for turn in turns for n in self._of(f"<{turn['role']}> {turn['content']}")] + self._of("<assistant>")

    def whole(self, turns: Any) -> list[int]:
        return self.prompt(turns[:-1]) + ([] if self._dumb else self._of(turns[-1]["content"]))

    def text(self, ids: Any) -> str:
        words = list(self._ids)
        return " ".join(words[n] for n in ids)


def export(source: Path, output: Path, *, sft: bool = True, seed: int = 0, notes: Notes | None = None, **keys: Any) -> StageResult:
    (output / "handoff").mkdir(parents=True, exist_ok=True)
    work = Workspace(output, "export", seed, Path("/nowhere"), notes or Notes())
    return exporter.run(work, Settings(ExportConfig(path=str(source), **keys), sft=Sft(sft)))


def validate(output: Path, tokenizer: Tokenizer | None = None, settings: Settings | None = None) -> StageResult:
    return validator.run(Workspace(output, "validate", 0, output, Notes()), settings or Settings(), tokenizer)


def rows(output: Path, name: str) -> Rows:
    return [json.loads(line) for line in (output / "handoff" / f"{name}.jsonl").read_text("utf-8").split("\n") if line]


def document(output: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "handoff" / name).read_text("utf-8"))
    return found


def checks(output: Path) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in document(output, "validation.json")["checks"]}


def bytes_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((output / "handoff").iterdir())}
