"""The model that is built on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest

from gepa_atlas.handoff.prompts import messages, read_completion, written
from gepa_atlas.train import tiny, weights
from gepa_atlas.train.config import TinyConfig
from gepa_atlas.train.tokens import ChatTokens
from gepa_atlas.types import Demo, Guidance
from tests.train import room

pytest.importorskip("trl")


def test_a_tiny_model_with_spaces_can_write_demonstrations(tmp_path: Path) -> None:
    """What it is taught comes back as it was, lines included: they tell the demonstrations of a guidance apart."""
    guidance = Guidance(
        "Say how.\nBe brief: one number.", (Demo("a", "Find the total of 3 and 2", "5"), Demo("b", "Add (them)", "VT-41189"))
    )
    asked = messages("", "Find the total of 3 and 2")
    work = room.workspace(tmp_path, "export")
    room.write(work.folder / "sft.jsonl", [{"prompt": asked, "completion": [{"role": "assistant", "content": written(guidance)}]}])
    tiny.build(tmp_path, TinyConfig(spaces=True, hidden=8, heads=2, layers=1), 128, 0, work.folder)
    tokenizer = weights.load_tokenizer(tmp_path, room.config().model)
    counted = ChatTokens(tokenizer, tmp_path)
    start, whole = counted.prompt(asked), counted.whole([*asked, {"role": "assistant", "content": written(guidance)}])
    assert whole[: len(start)] == start and tokenizer.unk_token_id not in whole
    read = read_completion(counted.text(whole[len(start) :]))
    assert read.text == guidance.text and [(d.question, d.answer) for d in read.demos] == [(d.question, d.answer) for d in guidance.demos]
