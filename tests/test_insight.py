"""export, compare, why and runs fork on real runs of the toy world."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from gepa_atlas import secrets
from gepa_atlas.cli import run
from gepa_atlas.store.view import RunView

ROOT = Path(__file__).parent.parent
CONFIG = str(ROOT / "configs/examples/toyworld.yaml")


def made(directory: Path, *more: str) -> Path:
    assert run(["optimize", CONFIG, "--max-metric-calls", "240", "--run-dir", str(directory), "--quiet", *more]) == 0
    return directory


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("runs") / "other", "--set", "seed=3")


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    capsys.readouterr()
    assert run([str(a) for a in arguments]) == code
    shown = capsys.readouterr()
    return shown.err if code else shown.out


def test_a_run_leaves_its_reports(one: Path) -> None:
    assert (one / "report.html").stat().st_size < 5_000_000
    assert (one / "report.md").read_text("utf-8").startswith("# toyworld: ")


def test_report_writes_the_same_again(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (one / name).read_bytes() for name in ("report.html", "report.md", "optimized_prompts.json", "traces.jsonl")}
    said(capsys, "report", one)
    assert {name: (one / name).read_bytes() for name in before} == before


def test_a_configuration_that_lost_a_secret_says_who_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setenv("SOME_API_KEY", "When a ticket names lilug")
    run_dir = made(tmp_path / "secret")
    capsys.readouterr()
    assert run(["report", str(run_dir)]) == 2
    said_so = capsys.readouterr().err
    assert "other values of: operator_options" in said_so and "writes the report too" in said_so and said_so.count("\n") == 1
    (run_dir / "report.md").unlink()
    assert made(run_dir) == run_dir and (run_dir / "report.md").exists()


@pytest.mark.parametrize("answer", [0, 1])
def test_open_hands_the_page_to_a_browser(
    answer: int, one: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(typer, "launch", lambda url: asked.append(url) or answer)
    said(capsys, "report", one, "--open")
    assert asked == [(one / "report.html").as_uri()]


def test_export_prints_or_writes(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(capsys, "export", one)
    said(capsys, "export", one, "-o", tmp_path / "prompt.txt")
    assert (tmp_path / "prompt.txt").read_text("utf-8") == printed
    assert "choose one of" in said(capsys, "export", one, "--format", "toml", code=2)
    ledger = (one / "run.db").read_bytes()
    assert "a file that runs keep" in said(capsys, "export", one, "-o", one / "run.db", code=2)
    assert (one / "run.db").read_bytes() == ledger
    assert "there is no such run" in said(capsys, "export", tmp_path / "none", code=2)


def test_compare_is_paired_on_what_both_held_out(one: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "compare", one, other, "--json"))
    means = {}
    for name, directory in (("a", one), ("b", other)):
        rows = [json.loads(line) for line in (directory / "traces.jsonl").read_text("utf-8").splitlines()]
        means[name] = {
            r["example"]["id"]: r["after"]["value"]
            for r in rows
            if r["candidate"] == found[name]["candidate"] and r["example"]["split"] == "test"
        }
        assert found[name]["test_mean"] == pytest.approx(sum(means[name].values()) / len(means[name]), abs=1e-6)
    shared = means["a"].keys() & means["b"].keys()
    gaps = [means["b"][e] - means["a"][e] for e in shared]
    gain = found["b_minus_a"]
    assert gain["pairs"] == len(shared) > 0 and gain["mean"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-6)
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert sorted(gain["better"]) == sorted(e for e in shared if means["b"][e] > means["a"][e])
    back = json.loads(said(capsys, "compare", other, one, "--json"))["b_minus_a"]
    assert back["mean"] == pytest.approx(-gain["mean"]) and back["better"] == gain["worse"]
    assert "95 % interval" in said(capsys, "compare", one, other)


def test_a_run_compared_with_itself_is_the_same(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Both say to use the same prompt" in said(capsys, "compare", one, one)


def test_runs_that_share_nothing_are_refused(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untested = made(tmp_path / "untested", "--set", "final_share=0")
    assert "no held-out result" in said(capsys, "compare", one, untested, code=2)


def test_why_agrees_with_the_traces(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (one / "traces.jsonl").read_text("utf-8").splitlines()]
    with RunView.read(one) as view:
        made_ = [
            e.payload["draft"]["candidate"]
            for e in view.events()
            if e.kind == "slot" and e.payload["draft"] and e.payload["draft"]["candidate"]
        ]
    for child in made_[:6]:
        found = json.loads(said(capsys, "why", one, child["id"], "--json"))
        parent = child["parents"][0]
        scores = {
            c: {r["example"]["id"]: r["after"]["value"] for r in rows if r["candidate"] == c and r["example"]["split"] != "test"}
            for c in (child["id"], parent)
        }
        shared = scores[child["id"]].keys() & scores[parent].keys()
        assert found["search_against_parent"]["pairs"] == len(shared)
        assert set(found["search_against_parent"]["better"]) == {e for e in shared if scores[child["id"]][e] > scores[parent][e]}
        assert "".join(t for op, t in found["diff"]["guidance"] if op != "-") == child["texts"]["guidance"]
    shown = said(capsys, "why", one, made_[0]["id"][:8])
    assert "Decided: " in shown and "search (select) split" in shown


def test_the_commands_of_the_page_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "report.md").read_text("utf-8")
    commands = [line for block in re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 8
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "gepa-atlas":
            smaller = ["--max-metric-calls", "240", "--quiet"] if arguments[0] == "optimize" else []
            assert run([*arguments, *smaller]) == 0, command
        else:
            assert command == "python -m benchmarks.report --browser"  # measured by hand; its parts are tested beside the page


def test_why_wants_one_candidate(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no candidate" in said(capsys, "why", one, "zzzz", code=2)
    assert "no candidate" in said(capsys, "why", one, "", code=2)
    with RunView.read(one) as view:
        drafts = [e.payload["draft"] for e in view.events() if e.kind == "slot" and e.payload["draft"]]
    ids = sorted({d["candidate"]["id"] for d in drafts if d["candidate"]})
    shared = next(a[0] for a, b in itertools.pairwise(ids) if a[0] == b[0])
    assert "candidates of" in said(capsys, "why", one, shared, code=2)


@pytest.mark.parametrize("at", [0, 7, "last"])
def test_a_fork_replays_for_nothing_and_finds_what_its_origin_found(
    at: int | str, one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunView.read(one) as view:
        slots = [e for e in view.events() if e.kind == "slot"]
        digest, calls = view.digest(), view.calls()
    slot = len(slots) - 1 if at == "last" else int(at)
    before = (one / "run.db").read_bytes()
    said(capsys, "runs", "fork", one, "--at", str(slot), "--run-dir", tmp_path / "fork")
    with RunView.read(tmp_path / "fork") as view:
        assert view.status == "finished" and view.digest() == digest
        assert view.calls()["by_role"] == calls["by_role"] and view.calls()["unsettled"] == 0
        forked = {row.name: row.body for row in view.rows() if row.kind == "event"}
    with RunView.read(one) as view:
        assert {row.name: row.body for row in view.rows() if row.kind == "event"} == forked
    assert (one / "run.db").read_bytes() == before


def test_a_fork_takes_other_limits_and_no_other_search(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "fork"
    fork = ["runs", "fork", one, "--at", "3", "--run-dir", target]
    assert "seed: this decides" in said(capsys, *fork, "--set", "seed=9", code=2)
    assert "choose one of them" in said(capsys, "runs", "fork", one, "--at", "9999", "--run-dir", target, code=2)
    assert not target.exists() and list(tmp_path.iterdir()) == []
    said(capsys, *fork, "--set", "budget.tokens=3000")
    with RunView.read(target) as view, RunView.read(one) as origin:
        assert view.digest() != origin.digest()
        assert view.calls()["usage"]["student"]["input_tokens"] < 3000
    assert json.loads((target / "config.json").read_text("utf-8"))["budget"]["tokens"] == 3000
    assert "exists already" in said(capsys, *fork, code=2)
