"""The files of questions that `eval` names beside the hand-off: `underspecified` and `regression`. They are the user's own, so checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.datafile import Row, read_rows
from gepa_atlas.errors import DataError
from gepa_atlas.handoff.workspace import Workspace, sha256_file
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.types import Example

NAMES = ("underspecified", "regression")


def inputs(work: Workspace, config: TrainConfig) -> dict[str, str]:
    """Hashes of the files."""
    return {name: sha256_file(path) for name, path in _files(work, config).items() if path.is_file()}


def check(work: Workspace, config: TrainConfig) -> None:
    """Read all of them, before anything is trained. Raises DataError."""
    for name in _files(work, config):
        asked(work, config, name)


def asked(work: Workspace, config: TrainConfig, name: str) -> list[Example]:
    """The questions of `eval.NAME`, none where no file is named; those of `regression` have answers. Raises DataError naming the line."""
    path = _files(work, config).get(name)
    rows = [] if path is None else read_rows(path)
    return [_question(f"{name}-{at}", row, answered=name == "regression") for at, row in enumerate(rows)]


def _files(work: Workspace, config: TrainConfig) -> dict[str, Path]:
    named = dict(zip(NAMES, (config.eval.underspecified, config.eval.regression), strict=True))
    return {name: work.input_path(path) for name, path in named.items() if path is not None}


def _question(identity: str, row: Row, *, answered: bool) -> Example:
    columns: Mapping[str, Any] = row.value if isinstance(row.value, dict) else {}
    question, answer, context = columns.get("question"), columns.get("answer"), columns.get("context") or ""
    answers: list[Any] = answer if isinstance(answer, list) else [answer]
    if not isinstance(question, str) or not question.strip() or not isinstance(context, str):
        raise DataError(f'{row.place}: no question in text; each row is an object {{"question": "...", "context": "..."}}, context if any')
    if answered and not (answers and all(isinstance(a, str) and a for a in answers)):
        raise DataError(f"{row.place}: no answer in text; a question of eval.regression needs one, or a list of those that are accepted")
    return Example(identity, question, tuple(answers) if answered else (), context, "test")
