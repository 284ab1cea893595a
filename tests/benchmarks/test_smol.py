"""smol's machinery on a scripted student: splits, vocabulary, every optimizer through the counting server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import demos
from benchmarks.optimizers import get
from benchmarks.server import EvalServer
from benchmarks.smol.__main__ import rows
from benchmarks.smol.landscape import SmolLandscape, admit
from benchmarks.smol.proposer import SEED
from benchmarks.smol.run import NAMES, play
from benchmarks.smol.student import Served, Student, prompt, right
from benchmarks.smol.tasks import draw, load
from gepa_atlas.ports import ChatRequest, Completion, Endpoint


class Upper:
    """Answers in capitals only when the prompt shows an example; the longer inputs need two."""

    identity = "scripted"
    endpoint = Endpoint("scripted")

    async def complete(self, request: ChatRequest) -> Completion:
        text = request.prompt or ""
        question = text.rsplit("Input: ", 1)[1].removesuffix("\nOutput:")
        shown = text.count("Output:") - 1
        return Completion(question.upper() + "!" if shown >= 1 + (len(question) > 8) else "no idea")


@pytest.fixture
def student() -> Iterator[Student]:
    served = Served(Upper())
    yield Student(served)
    served.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"input": f"word {i}a" + "b" * (i % 3), "output": [f"WORD {i}A" + "B" * (i % 3) + "!"]}) for i in range(200)]
    (tmp_path / "shout.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_a_demonstration_is_one_line_that_comes_back() -> None:
    text = "Do it.\n- " + demos.line('Is it "so"? Yes. Is it?\nNo!  Go', "A. B")
    assert text.count("\n") == 1
    assert ". " not in text.splitlines()[1]
    assert demos.take(text) == ("Do it.", [('Is it "so"? Yes. Is it?\nNo!  Go', "A. B")])


def test_splits_are_disjoint_and_drawn_by_the_key(folder: Path) -> None:
    found = load(folder)["shout"]
    one, other = draw("shout", found, "a", 0), draw("shout", found, "b", 0)
    parts = [{i.input for i in part} for part in (one.train, one.val, one.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200
    assert draw("shout", found, "a", 0) == one
    assert {i.input for i in one.test} != {i.input for i in other.test}


def test_a_folder_without_tasks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no task"):
        load(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"input": 3}\n')
    with pytest.raises(ValueError, match="bad"):
        load(tmp_path)


def test_answers_are_compared_without_case_quotes_and_final_stop() -> None:
    assert right(' "Paris". ', ("paris",))
    assert not right("Paris France", ("paris",))
    assert prompt(SEED, "x") == f"{SEED}\n\nInput: x\nOutput:"


def test_admission_sees_headroom(folder: Path, student: Student) -> None:
    verdict = admit(SmolLandscape(draw("shout", load(folder)["shout"], "k", 0), student))
    assert verdict.worst == 0.0
    assert verdict.best > 0.85
    assert not verdict.admitted  # too easy for eight prompts: nothing is left to compare searches on


@pytest.mark.parametrize("name", ["atlas", "gepa", "random", "best_of_n", "null"])
def test_every_optimizer_runs_and_the_budget_holds(name: str, folder: Path, student: Student) -> None:
    landscape = SmolLandscape(draw("shout", load(folder)["shout"], "k", 0), student)
    run = play(landscape, name, 400, 0)
    assert run["rollouts"] <= 400
    if name == "null":
        assert run["test_scores"] == run["seed_scores"]
    else:
        assert sum(run["test_scores"]) > sum(run["seed_scores"])


def test_miprov2_runs_and_its_calls_are_counted(folder: Path, student: Student) -> None:
    pytest.importorskip("dspy")
    landscape = SmolLandscape(draw("shout", load(folder)["shout"], "k", 0), student)
    server = EvalServer(landscape, 500)
    final = get("miprov2")(server, 0)
    assert 200 < server.ledger.student_calls <= 500
    assert sum(landscape.held_out(final)) > sum(landscape.held_out(server.seed))


def test_rows_have_the_fields_and_a_summary(folder: Path, student: Student) -> None:
    landscape = SmolLandscape(draw("shout", load(folder)["shout"], "k", 0), student)
    runs = [play(landscape, name, 300, seed) for seed in (0, 1) for name in ("random", "gepa")]
    made = rows(runs, ["random", "gepa"], 300)
    assert [(r["task"], r["optimizer"]) for r in made] == [("all", "random"), ("all", "gepa"), ("shout", "random"), ("shout", "gepa")]
    wanted = {"optimizer", "task", "seeds", "budget", "seed_score", "test_score", "gain", "gain_low", "gain_high", "rollouts"}
    assert all(wanted <= r.keys() for r in made)
    assert made[0]["over_gepa_low"] <= made[0]["over_gepa"] <= made[0]["over_gepa_high"]
    assert NAMES["atlas"].startswith("atlas:")
