"""What `doctor` finds wrong, and the command that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gepa_atlas.cli import run
from gepa_atlas.train import size
from gepa_atlas.train.config import LoadedTrain, load_train_config
from gepa_atlas.train.doctor import Row, examine, numbers, within


def loaded(tmp_path: Path, *sets: str) -> LoadedTrain:
    path = tmp_path / "my.yaml"
    path.write_text("model: {source: tiny}\noutput_dir: " + str(tmp_path / "out"))
    return load_train_config(path, sets, {})


def rows(found: LoadedTrain | None = None) -> dict[str, Row]:
    return {row.name: row for row in examine(found)}


def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    """An installed distribution of that version, as the import system sees it."""
    folder = tmp_path / "site" / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_this_machine_is_fit(tmp_path: Path) -> None:
    assert all(row.state == "ok" for row in examine(loaded(tmp_path)))


@pytest.mark.parametrize(
    ("name", "version", "fix"),
    [
        ("torch", "2.15.0", "pip install 'torch==2.13.0'"),
        ("torch", "2.12.1+cu128", "pip install 'torch==2.13.0'"),
        ("trl", "1.17.0", "pip install 'trl>=1.16,<1.17'"),
        ("trl", "0.14.0", "pip install 'trl>=1.16,<1.17'"),
        ("transformers", "4.51.1", "pip install 'transformers>=5.20,<6'"),
        ("vllm", "0.33.0", "pip install 'gepa-atlas[vllm]'"),
        ("vllm", "0.8.3", "pip install 'gepa-atlas[vllm]'"),
    ],
)
def test_each_mismatch_has_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, fix: str) -> None:
    pretend(tmp_path, monkeypatch, name, version)
    row = rows()[name]
    assert row.state == "bad" and version in row.said and row.fix == fix
    assert run(["grpo", "doctor"]) == 2


@pytest.mark.parametrize("version", ["0.22.0", "0.30.2", "0.31.0"])
def test_vllm_in_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    pretend(tmp_path, monkeypatch, "vllm", version)
    assert rows()["vllm"].state == "ok"


def test_what_a_configuration_needs(tmp_path: Path) -> None:
    found = rows(loaded(tmp_path, "vllm.mode=colocate", "tracking.report_to=[tensorboard]", "grpo.trl.bta=1", "launch.processes=8"))
    assert found["vllm"].fix == "pip install 'gepa-atlas[vllm]', or set vllm.mode: off"
    assert found["devices"].state == "bad" and "this run wants 1" in found["devices"].said
    assert found["trl fields"].state == "bad" and "did you mean" in found["trl fields"].said
    assert "pip install tensorboard" in found["tracking"].fix
    (tmp_path / "zero.yaml").write_text("distributed_type: DEEPSPEED\n")
    found = rows(loaded(tmp_path, "launch.backend=accelerate", "launch.config=zero.yaml", "launch.processes=8"))
    assert "this run wants 8" in found["devices"].said and found["deepspeed"].fix == "pip install 'gepa-atlas[deepspeed]'"
    assert rows(loaded(tmp_path, "model.tiny.hidden=1000000", "model.tiny.layers=100"))["disk"].state == "bad"


def test_versions_are_compared_by_their_numbers() -> None:
    assert numbers("2.13.0+cpu") == (2, 13, 0) and numbers("dev") == ()
    assert within("1.16.0", "1.16", "1.17") and not within("1.17.0", "1.16", "1.17") and within("5.24.0", "5.2", "6")


def test_sizes(tmp_path: Path) -> None:
    """Known models: within a tenth of what they have; the estimate of LoRA's share within a factor of two."""
    embedded = size.size_of(loaded(tmp_path, "model={source: embedded}").config, tmp_path)
    assert embedded.parameters == 134_515_008
    assert embedded.trained is not None and 0.5 < embedded.trained / 4_884_480 < 2  # peft's count for r 16, all linear layers
    named = size.size_of(loaded(tmp_path, "model={source: pretrained, id: Qwen/Qwen3-8B-Base}").config, tmp_path)
    assert named.parameters == 8_000_000_000
    whole = size.size_of(loaded(tmp_path, "model={source: pretrained, id: Qwen/Qwen3-8B-Base, lora: null}").config, tmp_path)
    assert whole.memory is not None and named.memory is not None and whole.memory > 3 * named.memory
    assert size.size_of(loaded(tmp_path, "model={source: pretrained, id: some/model}").config, tmp_path).parameters is None
    assert (size.shown(None), size.shown(999), size.shown(1_500_000), size.shown(16_000_000_000)) == ("unknown", "999 B", "1.5 MB", "16 GB")
