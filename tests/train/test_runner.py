"""The runner of stages: what is skipped, what is run again, what survives, what is left behind."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError, DataError, GateRefused, Outage, RunBusy
from gepa_atlas.handoff.workspace import StageRecord, Workspace, sha256_file
from gepa_atlas.store.exports import write_json
from gepa_atlas.store.lock import RunLock
from gepa_atlas.train import earlier, runner, stages
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


def contents(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in sorted(directory.rglob("*")) if p.is_file() and p.name not in ONCE}


ONCE = ("grpo.json", "grpo_report.json", "run.lock", "ranks")  # of the run that came last


def test_bad_data_of_a_later_run_leaves_the_earlier_result(place: Path) -> None:
    runner.run(loaded(place))
    before = contents(place / "out")
    (place / "traces.jsonl").write_text("empty")
    with pytest.raises(DataError):
        runner.run(loaded(place))
    assert contents(place / "out") == before
    (place / "traces.jsonl").write_text("some lessons")
    toy.ran(place)
    runner.run(loaded(place))
    assert toy.ran(place) == []


def test_a_stage_that_does_not_end_well_keeps_the_earlier_result_until_a_new_one_is_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run(loaded(place))
    before = contents(place / "out" / "train")
    toy.ran(place)
    monkeypatch.setenv("TOY_OUTAGE", "2")
    with pytest.raises(Outage):
        runner.run(loaded(place, "grpo.learning_rate=0.5"))
    runner.run(loaded(place))  # back to the first configuration: nothing is made again
    assert toy.ran(place) == ["train"] and contents(place / "out" / "train") == before
    runner.run(loaded(place, "grpo.learning_rate=0.5"))
    assert toy.ran(place) == ["train", "gate"] and not list((place / "out").glob(".*"))


@pytest.mark.parametrize("stage", ["validate", "train", "package"])
@pytest.mark.parametrize("at", range(6))
def test_a_kill_between_two_moves_leaves_one_result_whole(place: Path, monkeypatch: pytest.MonkeyPatch, stage: str, at: int) -> None:
    """Killed before the n-th change of the file system while a result is set aside and brought back."""
    work = Workspace(place / "out", stage, 0, place)
    name = "validation.json" if stage == "validate" else "weights"
    work.folder.mkdir(parents=True)
    (work.folder / name).write_text("made")
    (place / "out" / "handoff").mkdir(exist_ok=True)
    (place / "out" / "handoff" / "traces.jsonl").write_text("of another stage")
    outputs = {name: sha256_file(work.folder / name)}
    write_json(work.record_path(stage), asdict(StageRecord(stage, "done", {}, "", outputs, {}, 0, {}, "", "")))
    before = contents(place / "out")
    left = at

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(*given, **named)

        return change

    with monkeypatch.context() as patched:
        for method in ("rename", "unlink"):
            patched.setattr(Path, method, counted(getattr(Path, method)))
        patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
        with contextlib.suppress(KeyboardInterrupt):
            earlier.keep(work)
            work.folder.mkdir(exist_ok=True)
            (work.folder / "half").write_text("of the new one")
            earlier.bring_back(work)
    earlier.mend(work)
    (work.folder / "half").unlink(missing_ok=True)
    assert contents(place / "out") == before


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
