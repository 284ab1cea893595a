"""Runs in the memory: imported or remembered live, interrupted and resumed, reviewed, promoted, and started from. The real command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gepa_atlas.cli import run
from gepa_atlas.memory import query
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.query import Filter
from gepa_atlas.memory.store import Memory

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "configs" / "examples" / "toyworld.yaml")


def optimize(directory: Path, *more: str) -> int:
    return run(["optimize", TOY, "--quiet", "--run-dir", str(directory), "--max-metric-calls", "300", *more])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made once; tests copy it where they change it."""
    directory = tmp_path_factory.mktemp("toy") / "run"
    assert optimize(directory) == 0
    return directory


def table(url: str, name: sa.Table) -> list[tuple[Any, ...]]:
    with Memory.open(url, create=False) as memory, memory.engine.connect() as connection:
        return sorted(map(tuple, connection.execute(sa.select(*name.primary_key.columns))))


def lines(url: str) -> list[dict[str, Any]]:
    with Memory.open(url, create=False) as memory:
        return [json.loads(row["body"]) for row in query.lines(memory, Filter(), None)]


def test_a_run_is_imported_once(toy: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for new in (True, False):
        assert run(["traces", "import", str(toy), "--memory", url, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["new"] == (said["traces"] if new else 0)
    written = [json.loads(line) for line in (toy / "traces.jsonl").read_text("utf-8").splitlines()]
    assert lines(url) == written
    with Memory.open(url) as memory:
        (row,) = memory.rows(sa.select(s.runs))
        (verdict,) = memory.rows(sa.select(s.verdicts))
        known = {found["candidate_id"] for found in memory.rows(sa.select(s.candidates))}
        parents = {found["parent_id"] for found in memory.rows(sa.select(s.lineage))}
        times = [found["created"] for found in query.page(memory, Filter(), 1000)]
    assert (row["operation"], row["status"]) == ("toyworld", "finished")
    assert verdict["ruling"] == json.loads((toy / "optimized_prompts.json").read_text())["verdict"]["ruling"]
    assert {line["candidate"] for line in written} <= known and parents <= known
    assert min(times) >= row["started"] and max(times) > min(times)


def test_remembered_live_is_the_same_as_imported(url: str, tmp_path: Path) -> None:
    assert optimize(tmp_path / "live", "--set", f"memory.url={url}", "--set", "seed=4") == 0
    live = {one.name: table(url, one) for one in s.metadata.sorted_tables}
    assert len(live["traces"]) == len((tmp_path / "live" / "traces.jsonl").read_text().splitlines())
    assert run(["traces", "import", str(tmp_path / "live"), "--memory", url]) == 0
    assert {one.name: table(url, one) for one in s.metadata.sorted_tables} == live


def test_a_store_that_goes_away_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from gepa_atlas.errors import StoreFull
    from gepa_atlas.memory import live

    def full(self: Memory, found: object) -> int:
        raise StoreFull("memory.db: the disk refused a write")

    monkeypatch.setattr(live.Memory, "add", full)
    assert optimize(tmp_path / "run", "--set", f"memory={tmp_path}/m.db") == 0
    assert f"traces import {tmp_path}/run" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(["traces", "import", str(tmp_path / "run"), "--memory", f"{tmp_path}/m.db"]) == 0
    assert len(lines(f"{tmp_path}/m.db")) == len((tmp_path / "run" / "traces.jsonl").read_text().splitlines())


def test_an_unfinished_run_is_refused_and_remembered_as_far_as_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gepa_atlas.memory.live import Remembering

    url, directory = f"{tmp_path}/m.db", tmp_path / "run"
    told = Remembering.taught
    count = 0

    def interrupt(self: Remembering, *args: Any) -> None:
        nonlocal count
        told(self, *args)
        count += 1
        if count == 12:
            raise KeyboardInterrupt

    Remembering.taught = interrupt  # type: ignore[method-assign]
    try:
        assert optimize(directory, "--set", f"memory={url}") == 130
    finally:
        Remembering.taught = told  # type: ignore[method-assign]
    before = len(lines(url))
    assert before > 0
    assert run(["traces", "import", str(directory), "--memory", url]) == 2
    assert "command finishes it" in capsys.readouterr().err
    assert optimize(directory, "--set", f"memory={url}") == 0
    assert len(lines(url)) == len((directory / "traces.jsonl").read_text().splitlines()) > before


@pytest.mark.parametrize("name", ["traces.jsonl", "optimized_prompts.json"])
def test_a_run_without_its_files_is_refused_whole(name: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(toy, directory)
    (directory / name).write_text('{"half": ')
    assert run(["traces", "import", str(directory), "--memory", f"{tmp_path}/m.db"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "gepa-atlas report" in said
    assert lines(f"{tmp_path}/m.db") == []


def test_promotion_asks_the_judges_of_the_run(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{tmp_path}/m.db"
    run(["traces", "import", str(toy), "--memory", url])
    with Memory.open(url) as memory:
        good = query.page(memory, Filter(min_delta=0.5), 1)[0]["id"]
        same = query.page(memory, Filter(max_delta=0.0), 1)[0]["id"]
    assert run(["traces", "promote", good, "--memory", url]) == 2
    assert "only an approved lesson" in capsys.readouterr().err
    assert run(["traces", "review", "approved", good, same, "--memory", url]) == 0
    assert run(["traces", "promote", good, "--memory", url, "--note", "seen twice"]) == 0
    assert run(["traces", "promote", same, "--memory", url]) == 3
    capsys.readouterr()
    assert run(["traces", "show", good, "--memory", url, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["state"] == "golden"
    assert shown["reviews"][-1]["evidence"]["delta"] == 1.0 and shown["reviews"][-1]["note"] == "seen twice"
    with Memory.open(url) as memory:
        assert memory.states([good, same]) == {good: "golden", same: "approved"}
        changed = {"config": {**json.loads(next(iter(memory.rows(sa.select(s.runs.c.config))))["config"]), "rim": {"judges": ["contains"]}}}
        row = next(iter(memory.rows(sa.select(s.runs))))
        memory.put_run({**row, **changed})
    assert run(["traces", "promote", same, "--memory", url]) == 2
    assert "judges are not the same" in capsys.readouterr().err


def test_golden_that_the_judges_no_longer_see_stays_approved(toy: Path, tmp_path: Path) -> None:
    """A line whose rewards were changed in the file does not become golden: the outputs are judged again."""
    directory = tmp_path / "copy"
    shutil.copytree(toy, directory)
    changed = [json.loads(line) for line in (directory / "traces.jsonl").read_text().splitlines()]
    worst = next(line for line in changed if line["after"]["value"] == 0.0)
    worst["after"]["value"], worst["delta"] = 1.0, 1.0
    (directory / "traces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    url = f"{tmp_path}/m.db"
    assert run(["traces", "import", str(directory), "--memory", url]) == 0
    with Memory.open(url) as memory:
        forged = next(
            row["id"]
            for row in query.page(memory, Filter(min_delta=0.5), 1000)
            if (row["candidate_id"], row["example_id"], row["sample"]) == (worst["candidate"], worst["example"]["id"], worst["sample"])
        )
    assert run(["traces", "review", "approved", forged, "--memory", url]) == 0
    assert run(["traces", "promote", forged, "--memory", url]) == 3


# -- starting from it -------------------------------------------------------------------------------------------------


def test_a_warm_start_is_recorded_and_resumed(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, directory = f"memory={tmp_path}/m.db", tmp_path / "warm"
    arguments = ("--set", url, "--warm-start", str(toy))
    assert optimize(directory, "--set", "seed=9", *arguments) == 0
    said = capsys.readouterr().out
    tested = sum(1 for line in (toy / "traces.jsonl").read_text().splitlines() if '"split": "test"' in line) // 2  # seed and winner
    assert "starts from what toyworld learned" in said
    assert f"asked {tested} of the held-out examples, 0 in their search" in said
    config = json.loads((directory / "config.json").read_text())
    winner = json.loads((toy / "optimized_prompts.json").read_text())["best_candidate"]
    assert [seed["texts"] for seed in config["warm_start"]["seeds"]] == [winner]
    assert optimize(directory, "--set", "seed=9", *arguments) == 0, "the memory has grown: the run keeps what it was started with"
    assert optimize(directory, "--set", "seed=9", "--set", url) == 2, "without the flag it is another run"
    assert "warm_start" in capsys.readouterr().err


def test_auto_takes_similar_tasks_only(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{tmp_path}/m.db"
    assert optimize(tmp_path / "cold", "--set", f"memory={url}", "--warm-start", "auto") == 2
    assert "no memory here yet" in capsys.readouterr().err
    run(["traces", "import", str(toy), "--memory", url])
    assert optimize(tmp_path / "warm", "--set", f"memory={url}", "--warm-start", "auto") == 0
    assert json.loads((tmp_path / "warm" / "config.json").read_text())["warm_start"]["operations"] == ["toyworld"]
    data = tmp_path / "sums.jsonl"
    rows = [{"id": f"s{n}", "question": f"How much is {n} plus {n + 3}?", "answer": str(2 * n + 3)} for n in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = tmp_path / "sums.yaml"
    other.write_text(
        "agents: {student: {provider: toyworld}}\nprotocol: playbook\nrim: {judges: [exact]}\nmax_metric_calls: 60\n"
        f"data: {{path: {data}}}\nmemory: {url}\noperators: [edit]\n"
    )
    capsys.readouterr()
    assert run(["optimize", str(other), "--quiet", "--run-dir", str(tmp_path / "sums"), "--warm-start", "auto"]) == 0
    assert "starts cold" in capsys.readouterr().out
    assert json.loads((tmp_path / "sums" / "config.json").read_text())["warm_start"]["seeds"] == []


def test_a_python_call_remembers_too(tmp_path: Path) -> None:
    import gepa_atlas

    examples = [{"question": f"Spell {c}{n}", "answer": f"{c}{n}".upper()} for c in "abcdef" for n in range(6)]
    kept = {"url": f"{tmp_path}/m.db", "operation": "spell"}
    found = gepa_atlas.optimize(lambda question, guidance: question.split()[-1], examples, max_metric_calls=60, memory=kept)
    with Memory.open(f"{tmp_path}/m.db") as memory:
        assert [row["operation"] for row in query.counts(memory, Filter())] == ["spell"]
        assert len(query.ids(memory, Filter())) == len({lesson.cell for lesson in found.lessons})


def test_live_evidence_is_that_of_an_import(tmp_path: Path) -> None:
    assert optimize(tmp_path / "run", "--set", f"memory={tmp_path}/live.db", "--set", "seed=6") == 0
    assert run(["traces", "import", str(tmp_path / "run"), "--memory", f"{tmp_path}/later.db"]) == 0
    found = []
    for name in ("live", "later"):
        with Memory.open(f"{tmp_path}/{name}.db") as memory:
            found.append(sorted(tuple(row.values()) for row in memory.rows(sa.select(s.evidence))))
    assert found[0] == found[1] and found[0]
