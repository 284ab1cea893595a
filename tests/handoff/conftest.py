"""Real runs for the hand-off, one of each kind for the session: a toy world without a teacher, and a school with teacher and reflection."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import gepa_atlas
from gepa_atlas.config import load_config
from tests.handoff.desk import ROOT
from tests.story.school import School, opened
from tests.story.test_lessons import edit

WORD = "sesame"


def _student(body: dict[str, Any]) -> str:
    """Opens a box to who says the word for it: boxes with an even number have the word alone, the others need the number too."""
    found = re.search(r"What is in box (\d+)\?", body["prompt"])
    assert found is not None
    number = int(found[1])
    opened_ = WORD in body["prompt"] and (number % 2 == 0 or f"number {number % 4}" in body["prompt"])
    return f"content of box {number}" if opened_ else "I cannot open it."


def _teacher(body: dict[str, Any]) -> str:
    asked = body["messages"][-1]["content"]
    if "generous" not in asked:
        return "<teaching>Look harder.</teaching>"
    found = re.search(r"What is in box (\d+)\?", asked)
    assert found is not None
    return f"<teaching>Say {WORD}, it is number {int(found[1]) % 3}.</teaching>"


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of protocol lesson; it has train lessons, because reflection reads them."""
    directory = tmp_path_factory.mktemp("taught") / "run"
    splits = ["train"] * 16 + ["val"] * 16 + ["test"] * 12
    rows = [
        {"id": f"x{n}", "question": f"What is in box {n}?", "answer": f"content of box {n}", "split": split}
        for n, split in enumerate(splits)
    ]
    school = School(_student, _teacher, lambda body: edit("teacher_adaptive_template", "Be generous with words."))
    with opened(school):
        gepa_atlas.optimize(
            school.agent(),
            rows,
            run_dir=directory,
            agents={"teacher": school.model("teacher")},
            reflection_lm=school.model("reflection"),
            protocol="lesson",
            operators=["reflect"],
            max_metric_calls=250,
        )
    return directory


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of protocol playbook: the toy world of configs/examples."""
    directory = tmp_path_factory.mktemp("toy") / "run"
    given = load_config(ROOT / "configs" / "examples" / "toyworld.yaml").resolved
    kept = ("data", "operators", "operator_options", "seed_prompts")
    gepa_atlas.optimize(
        given["agents"]["student"], given["data"], run_dir=directory, max_metric_calls=300, **{k: given[k] for k in kept if k != "data"}
    )
    return directory
