"""Folders of models: what cannot be read is named in a line, and what was hashed is not read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.train import weights
from gepa_atlas.train.config import ModelConfig
from tests.train import room


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "x"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "["),
        ("config.json", "{"),
        ("chat_template.jinja", "{% for x in %}"),
        ("chat_template.jinja", "{{ raise_exception('no') }}"),
        ("model.safetensors", None),
        ("model.safetensors", "torn"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str | None, tmp_path: Path) -> None:
    room.handoff(tmp_path)
    config = room.config(model={"tiny": {"pretrain_steps": 0, "hidden": 8, "heads": 2, "layers": 1}})
    folder = weights.base_folder(room.workspace(tmp_path, "validate"), config)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    model = ModelConfig(source="pretrained", id=str(folder), context=96)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        weights.load_tokenizer(folder, model)
        weights.load_base(folder, model)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_the_weights_are_hashed_once_and_anew_when_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"first")
    read: list[str] = []
    monkeypatch.setattr(weights, "sha256_file", lambda path: read.append(path.name) or path.read_bytes().hex())
    before = weights.base_sha256(tmp_path)
    assert weights.base_sha256(tmp_path) == before and sorted(read) == ["config.json", "model.safetensors"]
    (tmp_path / "model.safetensors").write_bytes(b"another")
    assert weights.base_sha256(tmp_path) != before and read[2:] == ["model.safetensors"]
