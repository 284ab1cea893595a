"""The runner of stages: what is skipped, what is run again, what survives, what is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gepa_atlas.errors import ConfigError, DataError, GateRefused, Outage, RunBusy
from gepa_atlas.store.lock import RunLock
from gepa_atlas.train import runner, stages
from gepa_atlas.train.config import LoadedTrain, load_train_config
from tests.train import toy


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", toy.STAGES)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traces.jsonl").write_text("some lessons")
    (tmp_path / "my.yaml").write_text("model: {source: tiny}\noutput_dir: out\nhandoff: {path: traces.jsonl}\ngrpo: {max_steps: 4}\n")
    return tmp_path


def loaded(place: Path, *sets: str) -> LoadedTrain:
    return load_train_config(place / "my.yaml", sets, {})


ALL = ["export", "validate", "train", "gate"]


def test_finished_stages_are_skipped(place: Path) -> None:
    runner.run(loaded(place))
    assert toy.ran(place) == ALL
    again = runner.run(loaded(place))
    assert toy.ran(place) == [] and list(again.skipped) == ALL


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("grpo.learning_rate=0.5", ["train", "gate"]),
        ("gate.alpha=0.1", ["gate"]),
        ("validation.ngram=5", ["validate"]),
        ("handoff.z=2", ["export", "validate"]),  # the same rows come out of it: what reads them is not run again
        ("seed=3", ALL),
        ("reward.concurrency=2", []),
        ("package.promote=true", []),
    ],
)
def test_what_a_changed_key_runs_again(place: Path, change: str, again: list[str]) -> None:
    runner.run(loaded(place))
    toy.ran(place)
    runner.run(loaded(place, change))
    assert toy.ran(place) == again


def test_changed_input_and_damaged_output_run_again(place: Path) -> None:
    runner.run(loaded(place))
    toy.ran(place)
    (place / "out" / "train" / "weights").write_text("flipped")
    runner.run(loaded(place))
    assert toy.ran(place) == ["train"]  # makes the same weights, so the gate stands
    (place / "traces.jsonl").write_text("other lessons")
    runner.run(loaded(place))
    assert toy.ran(place) == ["export", "validate", "train"]


def test_an_outage_keeps_what_there_is_and_goes_on_from_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_OUTAGE", "2")
    with pytest.raises(Outage):
        runner.run(loaded(place))
    report = json.loads((place / "out" / "grpo_report.json").read_text())
    assert report["stages"]["train"]["status"] == "failed" and report["verdict"] is None
    runner.run(loaded(place))
    assert json.loads((place / "out" / "train" / "weights").read_text())[2] == 2  # began at the checkpoint


def test_a_checkpoint_of_another_configuration_is_not_gone_on_from(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_OUTAGE", "2")
    with pytest.raises(Outage):
        runner.run(loaded(place))
    runner.run(loaded(place, "grpo.learning_rate=0.5"))
    assert json.loads((place / "out" / "train" / "weights").read_text())[2] == 0


def test_bad_data_leaves_nothing_behind(place: Path) -> None:
    (place / "traces.jsonl").write_text("empty")
    with pytest.raises(DataError):
        runner.run(loaded(place))
    assert not (place / "out").exists()


def test_bad_data_of_a_later_run_leaves_the_directory_and_no_half_stage(place: Path) -> None:
    runner.run(loaded(place))
    (place / "traces.jsonl").write_text("empty")
    with pytest.raises(DataError):
        runner.run(loaded(place))
    assert not (place / "out" / "handoff").exists() and (place / "out" / "train" / "weights").exists()


def test_the_gate_refuses_and_everything_is_kept(place: Path) -> None:
    with pytest.raises(GateRefused, match="inconclusive: 30 of 30"):
        runner.run(loaded(place, "gate.min_ndr=1"))
    assert json.loads((place / "out" / "grpo_report.json").read_text())["verdict"] == "inconclusive"
    toy.ran(place)
    with pytest.raises(GateRefused):  # asked again, it says the same without deciding again
        runner.run(loaded(place, "gate.min_ndr=1"))
    assert toy.ran(place) == []


def test_a_directory_of_somebody_else_is_refused(place: Path) -> None:
    (place / "out" / "train").mkdir(parents=True)
    (place / "out" / "train" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="'train' and is no training run"):
        runner.run(loaded(place))
    assert (place / "out" / "train" / "mine.txt").exists()


def test_one_owner(place: Path) -> None:
    (place / "out").mkdir()
    lock = RunLock(place / "out")
    with pytest.raises(RunBusy, match="in the hands of process"):
        runner.run(loaded(place))
    lock.release()
    runner.run(loaded(place))


def test_no_disk(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"are free and 4 checkpoints need about"):
        runner.run(loaded(place, "model.tiny.hidden=1000000", "model.tiny.layers=100"))
    assert not (place / "out").exists()


def test_from_and_until(place: Path) -> None:
    with pytest.raises(ConfigError, match="stage export is not done"):
        runner.run(loaded(place), first="train")
    runner.run(loaded(place), until="validate")
    assert toy.ran(place) == ["export", "validate"]
    runner.run(loaded(place), first="train", until="train")
    assert toy.ran(place) == ["train"]
    for first, until, says in (("gate", "train", "comes after"), ("sft", None, "is not enabled"), ("trian", None, "is no stage")):
        with pytest.raises(ConfigError, match=says):
            runner.run(loaded(place), first=first, until=until)


def test_the_report_has_every_key(place: Path) -> None:
    runner.run(loaded(place))
    report = json.loads((place / "out" / "grpo_report.json").read_text())
    wanted = "base_delta trained_delta gain gain_low gain_high non_degradation n_tasks verdict kl_step1 adapter_sha256 stages"
    assert set(wanted.split()) <= report.keys()
    assert (report["verdict"], report["n_tasks"], report["kl_step1"], report["adapter_sha256"]) == ("pass", 30, 0.0, "aa")
    assert all(stage["versions"]["gepa_atlas"] for stage in report["stages"].values())


def test_a_directory_keeps_its_configuration(place: Path) -> None:
    runner.run(loaded(place, "grpo.max_steps=2"))
    kept = runner.load_resolved(place / "out")
    assert kept.config == loaded(place, "grpo.max_steps=2").config and kept.base_dir == place
