"""Limits are hard, counted where it costs: on the provider's own book. A finished run costs nothing more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gepa_atlas.testing.provider import read_book
from tests.story.stage import TOY, Stage
from tests.story.witness import Witness, digest, files, rollouts

DEAREST = 0.0002  # dollars; no call of this world takes 200 words


def arguments(room: Path, *sets: str, name: str = "run") -> list[str | Path]:
    student = f"{{world: {{seed: 3, noise: 0.5, examples: 5}}, ledger: {room / name}.book}}"
    given = [f"agents.student.params={student}", "data.toyworld.examples=40", *sets]
    return ["optimize", TOY, "--run-dir", room / name, "--quiet", *(part for assignment in given for part in ("--set", assignment))]


def test_no_limit_from_one_up_is_ever_passed(stage: Stage, room: Path) -> None:
    spent = {}
    for limit in (*range(1, 13), *range(13, 45, 4), 57, 100, 300):
        name = f"n{limit}"
        stage.done(*arguments(room, f"max_metric_calls={limit}", name=name))
        book = read_book(room / f"{name}.book")
        spent[limit] = sum(book.charged.values())
        assert spent[limit] <= limit
        assert rollouts(room / name) == spent[limit] == len(book.charged)  # the program's own count is the provider's
        result = json.loads((room / name / "optimized_prompts.json").read_text())
        assert result["rollouts"] == {"spent": spent[limit], "limit": limit}
    assert all(spent[limit] > 0.6 * limit for limit in spent if limit >= 8), spent  # and it is not left lying about


def test_a_limit_holds_for_a_run_that_was_killed(stage: Stage, room: Path) -> None:
    """Calls that were under way at the kill are made again; nothing else is."""
    limit = 37
    witness = Witness(room / "run", room / "run.book")
    for write in range(5, 65, 12):
        stage.run(*arguments(room, f"max_metric_calls={limit}"), die_at_write=write)
        witness.look()
    stage.done(*arguments(room, f"max_metric_calls={limit}"))
    witness.look()
    assert len(witness.charged) <= limit and witness.extra <= witness.in_flight


def test_a_finished_run_makes_no_call_and_leaves_the_same_files(stage: Stage, room: Path) -> None:
    first = stage.done(*arguments(room, "max_metric_calls=100"))
    before, book = files(room / "run"), (room / "run.book").read_bytes()
    again = stage.done(*arguments(room, "max_metric_calls=100"))
    assert again == first
    assert files(room / "run") == before and (room / "run.book").read_bytes() == book
    stage.done("report", room / "run")
    assert files(room / "run") == before and (room / "run.book").read_bytes() == book


@pytest.mark.parametrize("limits", ["{tokens: 3000}", "{tokens: 12000}", "{dollars: 0.004}", "{tokens: 20}", "{dollars: 0.000001}"])
def test_tokens_and_dollars_are_never_passed_and_the_run_replays(stage: Stage, room: Path, limits: str) -> None:
    sets = ("max_metric_calls=400", "agents.student.params.latency=0.001")
    ended = stage.run(*arguments(room, *sets, f"budget={limits}"))
    if ended.code == 2:  # not even the first answer can be paid
        assert "leaves no room" in ended.line
        assert not read_book(room / "run.book").charged
        return
    result = json.loads((room / "run" / "optimized_prompts.json").read_text())
    spent = result["spend"]["student"]
    key, limit = limits.strip("{}").split(": ")
    tokens = spent["input_tokens"] + spent["output_tokens"]
    if key == "tokens":
        assert tokens <= float(limit)
    else:  # what a call will cost is known from the calls before it: the limit can be passed by the growth of one
        assert spent["dollars"] <= float(limit) + DEAREST
    assert sum(read_book(room / "run.book").charged.values()) == spent["calls"] == result["rollouts"]["spent"]
    before, book = files(room / "run"), (room / "run.book").read_bytes()
    for other in (limits, "{}", "{tokens: 100000000}"):  # where a limit struck is part of the record
        stage.done(*arguments(room, *sets, f"budget={other}"))
        assert (room / "run.book").read_bytes() == book
        assert files(room / "run").keys() == before.keys()
        assert json.loads((room / "run" / "optimized_prompts.json").read_text()) == result


@pytest.mark.chaos
def test_a_token_limit_holds_over_kills(stage: Stage, room: Path) -> None:
    sets = ("max_metric_calls=400", "budget={tokens: 12000}")
    witness = Witness(room / "run", room / "run.book")
    for write in (3, 9, 20, 40, 30, 25, 35):
        stage.run(*arguments(room, *sets), die_at_write=write)
        witness.look()
    stage.done(*arguments(room, *sets))
    witness.look()
    digest(room / "run")
    assert (witness.charged_again, witness.lost) == (0, 0) and witness.extra <= witness.in_flight
    spent = json.loads((room / "run" / "optimized_prompts.json").read_text())["spend"]["student"]
    assert spent["input_tokens"] + spent["output_tokens"] <= 12000


def test_a_dollar_limit_needs_prices(stage: Stage, room: Path) -> None:
    """What an agent costs that does not say it is unknown, not zero: such a run is refused after one answer, not at the limit."""
    (room / "agent.py").write_text("def answer(prompt):\n    return '4'\n")
    (room / "rows.jsonl").write_text("".join(json.dumps({"question": f"{n} + {n}?", "answer": str(2 * n)}) + "\n" for n in range(24)))
    config = room / "run.yaml"
    config.write_text(
        "agents: {student: {provider: python.callable, params: {callable: 'agent.py:answer'}}}\n"
        "data: {path: rows.jsonl}\noperators: [edit]\nmax_metric_calls: 20\nbudget: {dollars: 1}\n"
    )
    for _ in range(2):
        refused = stage.run("optimize", config, "--run-dir", room / "run", "--quiet")
        assert refused.code == 2 and "budget.dollars" in refused.line and "dollars_per_call" in refused.line
    stage.done("optimize", config, "--run-dir", room / "run2", "--quiet", "--set", "agents.student.params.dollars_per_call=0.01")
