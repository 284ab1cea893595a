"""Calibration with judges that are asked now, served on loopback: their noise is measured, and it reaches the reward."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.cli import rim_commands as commands
from gepa_atlas.errors import DataError
from gepa_atlas.rim.labels import load_labels
from gepa_atlas.rim.profile import load_profile
from gepa_atlas.rim.reward import RIMReward
from tests.story.school import School, opened


def unsteady(body: dict[str, Any]) -> str:
    """Right answers near .7, wrong ones near .3, and .1 of noise in every draw."""
    said = body["messages"][1]["content"]
    noise = int(hashlib.sha256(f"{said}{body['seed']}".encode()).hexdigest()[:6], 16) / 0xFFFFFF - 0.5
    score = (0.7 if "right" in said.split('"answer"')[1] else 0.3) + 0.35 * noise
    return json.dumps({"principles": ["p"], "rationale": "so", "score": round(score, 3), "uncertainty": 0.1})


@pytest.mark.parametrize(("draws", "known"), [(2, True), (1, False)])
def test_noise_of_one_draw_is_measured_and_used(tmp_path: Path, draws: int, known: bool) -> None:
    rows = [{"label": i % 2 == 0, "question": f"q{i}", "output": f"{'right' if i % 2 == 0 else 'wrong'} {i}"} for i in range(40)]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with opened(School(teacher=unsteady)) as school:
        judge = {"type": "llm", "model": school.model("teacher", max_concurrency=8)}
        tier_two = {"type": "llm", "name": "second", "model": school.model("teacher"), "rubric": "quality"}
        (tmp_path / "rim.yaml").write_text(yaml.safe_dump({"rim": {"judges": [judge], "escalate": {"judges": [tier_two]}}}))
        profile = tmp_path / "p.json"
        said: list[str] = []
        given = {"labels": tmp_path / "labels.jsonl", "config": tmp_path / "rim.yaml", "out": profile, "draws": draws}
        assert commands.calibrate(**given, say=said.append) == 0
        noise = load_profile(profile).figures["labels"]["noise_of_one_draw"]
        assert list(noise) == ["llm", "second"]  # the second tier was asked about every row
        if known:
            assert 0.05 < noise["llm"] < 0.15
        else:
            assert noise["llm"].startswith("not measured")
        config = {"judges": [judge], "escalate": {"judges": [tier_two]}, "profile": str(profile)}
        with RIMReward(config=config) as rim:
            doubt = rim.evaluate("q1", "right 1").extra["info"]["uncertainty"]
            assert (doubt is not None and doubt > 0.0) if known else doubt is None


@pytest.mark.parametrize("scores", [5, [1, 2], "x", None])
def test_labels_whose_scores_are_no_object_name_the_line(tmp_path: Path, scores: object) -> None:
    (tmp_path / "labels.jsonl").write_text(json.dumps({"label": True, "scores": scores}))
    with pytest.raises(DataError, match=":1: `scores` is an object"):
        load_labels(tmp_path / "labels.jsonl")
