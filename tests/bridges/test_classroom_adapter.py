"""Our classroom as a GEPAAdapter: upstream gepa and our search run on the same agent, data and judges."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import gepa as upstream
import pytest
import yaml

from gepa_atlas.bridges.classroom_adapter import ClassroomAdapter
from gepa_atlas.compat import gepa
from gepa_atlas.errors import AgentUnusable, ConfigError

CONFIG = Path(__file__).parents[2] / "configs" / "examples" / "toyworld.yaml"


class Quiet:
    def log(self, message: str) -> None:
        pass


def reflect(prompt: str) -> str:
    """Adds a rule that one of the failed tickets of the prompt suggests."""
    tickets = re.findall(r"names ([a-z, ]+)\. What", prompt)
    wanted = [w for w in re.findall(r"accepted answers: ([a-z]+)", prompt)]
    shown = re.search(r"```\n(.*?)\n```", prompt, re.DOTALL)
    assert shown
    draw = random.Random(len(prompt))
    at = draw.randrange(len(wanted))
    word = draw.choice(tickets[at].split(", "))
    return f"```\n{shown[1]}\nWhen a ticket names {word}, cite {wanted[at]}.\n```"


@pytest.mark.parametrize("optimizer", [upstream.optimize, gepa.optimize], ids=["gepa", "gepa_atlas"])
def test_both_searches_run_on_it(optimizer: Any) -> None:
    adapter = gepa.classroom(CONFIG)
    assert (len(adapter.trainset), len(adapter.valset)) == (36, 36) and adapter.seed_candidate == {"guidance": "Read the ticket and reply."}
    result = optimizer(
        seed_candidate=adapter.seed_candidate,
        trainset=adapter.trainset,
        valset=adapter.valset,
        adapter=adapter,
        reflection_lm=reflect,
        max_metric_calls=400,
        logger=Quiet(),
    )
    assert result.val_aggregate_scores[0] < 0.1 < result.val_aggregate_scores[result.best_idx]
    assert "cite" in result.best_candidate["guidance"]
    assert set(result.val_aggregate_subscores[0]) == {"reward", "delta"}


def test_the_score_is_the_reward_or_the_delta() -> None:
    texts = {"guidance": CONFIG.read_text().replace("- When", "When")}  # every rule of the world, and its decoys
    reward, delta = gepa.classroom(CONFIG), gepa.classroom(CONFIG, score="delta")
    one, two = reward.evaluate(reward.valset, texts, True), delta.evaluate(delta.valset, texts)
    assert two.trajectories is None and sum(one.scores) > 3
    assert [b["delta"] for b in one.objective_scores] == two.scores
    assert [b["reward"] for b in two.objective_scores] == one.scores
    row = reward.make_reflective_dataset(texts, one, ["guidance"])["guidance"][0]
    assert set(row) == {"Inputs", "Generated Outputs", "Feedback"} and "accepted answers" in row["Feedback"]
    with pytest.raises(ConfigError, match="it is 'reward' or 'delta'"):
        gepa.classroom(CONFIG, score="gain")  # type: ignore[arg-type]


def test_a_failure_is_a_number_only_where_the_caller_says_which(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("def answer(question, guidance):\n    raise OSError('out of order')\n")
    tree = yaml.safe_load(CONFIG.read_text())
    tree["agents"] = {"student": {"provider": "python.callable", "params": {"callable": "agent.py:answer"}}}
    tree["retry"] = {"attempts": 1}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(tree))
    adapter: ClassroomAdapter = gepa.classroom(tmp_path / "broken.yaml")
    with pytest.raises(AgentUnusable, match=r"has no score: .*out of order"):
        adapter.evaluate(adapter.valset[:1], adapter.seed_candidate)
    told = gepa.classroom(tmp_path / "broken.yaml", failure_score=0.0)
    assert told.evaluate(told.valset[:2], told.seed_candidate).scores == [0.0, 0.0] and told.unscored == 2
