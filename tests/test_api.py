"""gepa_atlas.optimize: what may be given, what comes back, what is kept, and how wrong input is refused."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import gepa_atlas
from gepa_atlas import AtlasError, Example

EXAMPLES = [{"question": f"word {c}{n}", "answer": f"{c}{n}".upper()} for c in "abcdefghij" for n in range(5)]
CALLS = 0


def agent(question: str, guidance: str) -> str:
    global CALLS
    CALLS += 1
    answer = question.split()[-1]
    return answer.upper() if "capital" in guidance.lower() else answer


def upper(output: str, example: Example) -> tuple[float, str]:
    return float(output == output.upper()), "only capitals count"


def test_an_agent_improves_and_says_so() -> None:
    result = gepa_atlas.optimize(agent, EXAMPLES, max_metric_calls=150)
    assert result.shipped and "CAPITAL" in result.best_candidate["guidance"]
    assert result.document["best_score"] == 1.0 and result.document["initial_score"] == 0.0
    assert result.verdict.gain == 1.0 and str(result).startswith("Ship the evolved prompt")
    assert len(result.lessons) > 20 and result.directory is None


def test_a_run_directory_is_gone_on_with(tmp_path: Path) -> None:
    first = gepa_atlas.optimize(agent, EXAMPLES, max_metric_calls=60, run_dir=tmp_path / "run")
    before = CALLS
    again = gepa_atlas.optimize(agent, EXAMPLES, max_metric_calls=60, run_dir=tmp_path / "run")
    assert before == CALLS, "a finished run makes no call"
    assert again.document == first.document == json.loads((tmp_path / "run" / "optimized_prompts.json").read_text())
    with pytest.raises(AtlasError, match="started with other values of: data"):
        gepa_atlas.optimize(agent, EXAMPLES[1:], max_metric_calls=60, run_dir=tmp_path / "run")
    with pytest.raises(AtlasError, match="started with other values of: seed"):
        gepa_atlas.optimize(agent, EXAMPLES, max_metric_calls=60, run_dir=tmp_path / "run", seed=1)


def test_functions_judge_and_settings_are_read() -> None:
    result = gepa_atlas.optimize(
        agent,
        EXAMPLES,
        judges=["exact", upper, *(lambda o, e, at=at: at for at in (0.5, 1))],
        seed_prompt="Use capitals.",
        max_metric_calls=60,
        seed=3,
    )
    parts = {part.judge: part.value for lesson in result.lessons for part in lesson.after.parts}
    assert parts == {"exact": 1.0, "upper": 1.0, "judge_2": 0.5, "judge_3": 1.0}
    assert result.document["initial_score"] == 0.875 and not result.shipped
    assert result.best_candidate == {"guidance": "Use capitals."}


def test_a_lambda_a_mapping_and_a_path_will_do(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in EXAMPLES))
    (tmp_path / "mine.py").write_text("def answer(question, guidance):\n    return question.split()[-1]\n")
    for who in (lambda question, guidance: question, {"provider": "python.callable", "params": {"callable": f"{tmp_path}/mine.py:answer"}}):
        assert not gepa_atlas.optimize(who, path, max_metric_calls=40).shipped


def test_it_works_where_a_loop_is_running() -> None:
    async def notebook() -> Any:
        return gepa_atlas.optimize(agent, EXAMPLES, max_metric_calls=40)

    assert asyncio.run(notebook()).document["best_score"] is not None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_metric_call": 5}, "max_metric_call: unknown key; did you mean 'max_metric_calls'?"),
        ({"examples": [{"question": "a", "answer": {1, 2}}]}, "examples: one of them is not JSON"),
        ({"examples": []}, "no examples in it"),
        ({"judges": ["exakt"]}, "did you mean 'exact'"),
        ({"examples": 7}, "examples: a int holds none"),
        ({"judges": "exact"}, "'exact' is one judge; write judges="),
        ({"judges": [7]}, "judge_0: a int cannot be called"),
        ({"agent": lambda x, y: ""}, "must take some of prompt, question, context"),
        ({"agent": {"provider": "http.apy"}}, "did you mean 'http.api'"),
        ({"seed_prompt": {"system": "x"}}, "seed_prompts.system: protocol 'playbook' has no such component"),
    ],
)
def test_wrong_input_is_one_line(given: dict[str, Any], says: str) -> None:
    call: dict[str, Any] = {"agent": agent, "examples": EXAMPLES, **given}
    with pytest.raises(AtlasError) as refused:
        gepa_atlas.optimize(call.pop("agent"), call.pop("examples"), **call)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_optimize_is_the_function_whatever_was_imported() -> None:
    assert callable(gepa_atlas.optimize) and "gepa_atlas.optimize" not in sys.modules
