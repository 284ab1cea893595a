"""What ships: everything that was judged, nothing else, whole, and checkable with the tools everybody has."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gepa_atlas.errors import BundleDamaged, ConfigError, DataError
from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.ship import bundle, gate, sums
from gepa_atlas.ship.registry import Registry
from tests.ship.world import GAIN, PROMPT, Config, easy, effects, packaged, training_run


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return packaged(tmp_path / "run", easy(registry=tmp_path / "registry"))


def test_the_bundle_holds_what_was_judged_and_sha256sum_agrees(built: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=built, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == set(sums.files_of(built)) == {
        "README.md", "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/atlas.json", "decision.json",
        "demos.json", "eval/cells.jsonl", "eval_2x2.json", "manifest.json", "prompt.json", "prompt.txt",
    }  # fmt: skip
    assert (built / "prompt.txt").read_text() == PROMPT["system"]
    assert json.loads((built / "prompt.json").read_text())["parent_hashes"] == ["sha256:0"]


def test_the_card_has_front_matter_and_the_line_that_serves_it(built: Path) -> None:
    text = (built / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert (front["base_model"], front["library_name"]) == ("some/base", "peft")
    measured = json.loads((built / "decision.json").read_text())["criteria"][1]["value"]
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == measured
    assert "vllm serve some/base --enable-lora --lora-modules teacher=adapter --max-lora-rank 8" in text


def test_the_same_run_makes_the_same_bundle(built: Path, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "run", "package", 3, tmp_path)
    first = sums.bundle_id(built)
    assert bundle.run(work, easy()).figures["bundle"] == first == sums.bundle_id(built)
    assert [p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".")] == []


def test_a_run_that_says_so_promotes_its_bundle(tmp_path: Path) -> None:
    config = easy(registry=tmp_path / "registry")
    package = config.package.model_copy(update={"promote": True})
    made = packaged(tmp_path / "run", Config(config.gate, package))
    assert Registry(tmp_path / "registry").channel("teacher").current == sums.bundle_id(made)


def test_what_training_leaves_beside_an_adapter_does_not_ship(tmp_path: Path) -> None:
    config = easy(registry=tmp_path / "registry")
    work = training_run(tmp_path / "run", effects(GAIN, 40))
    adapter = tmp_path / "run" / "train" / "adapter"
    (adapter / "ref").mkdir()
    (adapter / "ref" / "adapter_model.safetensors").write_bytes(b"")
    (adapter / "training_args.bin").write_bytes(b"pickle")
    result = gate.run(work, config)
    assert result.figures["verdict"] == "fail"
    assert "ref" in result.figures["reasons"][0] and "training_args.bin" in result.figures["reasons"][0]
    package = Workspace(tmp_path / "run", "package", 3, tmp_path)
    bundle.run(package, config)
    assert [f for f in sums.files_of(package.folder) if "ref" in f or f.endswith(".bin")] == []


@pytest.mark.parametrize(
    "changed", ["train/adapter/adapter_model.safetensors", "eval/cells.jsonl", "handoff/prompts.jsonl", "gate/eval_2x2.json"]
)
def test_a_file_that_changed_after_the_gate_is_not_packaged(changed: str, tmp_path: Path) -> None:
    config = easy(registry=tmp_path / "registry")
    gate.run(training_run(tmp_path / "run", effects(GAIN, 40)), config)
    path = tmp_path / "run" / changed
    path.write_bytes(path.read_bytes().replace(b"units", b"Units") if changed.endswith("prompts.jsonl") else path.read_bytes() + b"\n")
    package = Workspace(tmp_path / "run", "package", 3, tmp_path)
    with pytest.raises(DataError, match="run the stage"):
        bundle.run(package, config)
    assert not package.folder.exists() and not list((tmp_path / "run").glob(".bundle*"))


def test_damage_of_any_file_is_seen(built: Path, tmp_path: Path) -> None:
    sums.verify(built)
    for name in sums.files_of(built):
        copy = tmp_path / "copy"
        shutil.copytree(built, copy)
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(BundleDamaged, match=name):
            sums.verify(copy)
        (copy / name).unlink()
        with pytest.raises(BundleDamaged, match="is missing"):
            sums.verify(copy)
        shutil.rmtree(copy)
    (built / "adapter" / "more.safetensors").write_bytes(b"")
    with pytest.raises(BundleDamaged, match="not in its SHA256SUMS"):
        sums.verify(built)


@pytest.mark.parametrize("line", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", "two words"])
def test_a_list_of_checksums_cannot_point_outside(line: str, built: Path) -> None:
    with (built / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {line}\n")
    with pytest.raises(BundleDamaged):
        sums.verify(built)


def test_links_are_no_part_of_a_bundle(built: Path) -> None:
    (built / "prompt.txt").unlink()
    (built / "prompt.txt").symlink_to("/etc/hostname")
    with pytest.raises(BundleDamaged, match=r"prompt\.txt is neither"):
        sums.verify(built)


def test_a_prompt_with_a_secret_does_not_ship(tmp_path: Path) -> None:
    work = training_run(tmp_path / "run", effects(GAIN, 40), adapter=False)
    path = tmp_path / "run" / "handoff" / "prompts.jsonl"
    key = "sk-" + "a1" * 12  # by its shape
    path.write_text(json.dumps({**PROMPT, "system": f"use {key}"}) + "\n")
    with pytest.raises(DataError, match="secret"):
        gate.run(work, easy(registry=tmp_path / "registry"))


def test_a_stage_that_is_missing_is_named(tmp_path: Path) -> None:
    work = Workspace(tmp_path, "gate", 0, tmp_path)
    with pytest.raises((ConfigError, DataError), match="eval"):
        gate.run(work, easy(registry=tmp_path / "registry"))
