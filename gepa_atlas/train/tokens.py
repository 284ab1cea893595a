"""The stage `validate` with the tokenizer of the model that is to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gepa_atlas.errors import MissingExtra
from gepa_atlas.handoff import validator
from gepa_atlas.handoff.prompts import Turn
from gepa_atlas.handoff.workspace import StageResult, Workspace, sha256_file
from gepa_atlas.train import suites
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.fields import require_extra
from gepa_atlas.train.weights import base_folder, load_tokenizer


class ChatTokens:
    """A transformers tokenizer behind the hand-off's port (`handoff.tokens.Tokenizer`)."""

    def __init__(self, tokenizer: Any, folder: Path) -> None:
        self._tokenizer = tokenizer
        file = folder / "tokenizer.json"
        self.sha256 = sha256_file(file) if file.is_file() else None

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        return self._ids(turns, add_generation_prompt=True)

    def whole(self, turns: Sequence[Turn]) -> list[int]:
        return self._ids(turns, add_generation_prompt=False)

    def text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _ids(self, turns: Sequence[Turn], *, add_generation_prompt: bool) -> list[int]:
        made = self._tokenizer.apply_chat_template(list(turns), add_generation_prompt=add_generation_prompt, return_dict=True)
        return list(made["input_ids"])


def validate(work: Workspace, config: TrainConfig) -> StageResult:
    """Check the hand-off. Without the extra [train] the checks in tokens are skipped, and said to be."""
    suites.check(work, config)
    try:
        require_extra()
        folder = base_folder(work, config)
        tokenizer = ChatTokens(load_tokenizer(folder, config.model), folder)
    except MissingExtra as missing:
        work.progress.note(f"lengths in tokens are not checked: {missing}")
        return validator.run(work, config)
    return validator.run(work, config, tokenizer)
