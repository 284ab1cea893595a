"""What a run leaves behind: valid against its schema, complete, and without a secret in it."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.story.school import School, opened
from tests.story.stage import ROOT, TOY, Ended, Stage
from tests.story.witness import digest, rollouts

SCHEMA = json.loads((ROOT / "docs" / "optimized_prompts.schema.json").read_text())
SIX = ("best_candidate", "best_score", "initial_score", "improvement", "improvement_percentage", "pareto_frontier")


def lessons_told(directory: Path) -> set[tuple[str, str, int]]:
    """Cells (candidate, example, sample) of every slot in run.db."""
    with sqlite3.connect(directory / "run.db") as reader:
        bodies = [json.loads(row[0]) for row in reader.execute("SELECT body FROM log WHERE kind = 'event'")]
    reader.close()
    return {tuple(result[:3]) for body in bodies for result in body.get("results", [])}


@pytest.mark.parametrize("sets", [[], ["max_metric_calls=1"], ["max_metric_calls=30"], ["data.max_examples=8"], ["final_share=0"]])
def test_the_files_of_a_run(stage: Stage, room: Path, sets: list[str]) -> None:
    given = ["max_metric_calls=150", *sets, f"output={room / 'copy.json'}"]
    stage.done("optimize", TOY, "--run-dir", room / "run", "--quiet", *(part for assignment in given for part in ("--set", assignment)))
    result = json.loads((room / "run" / "optimized_prompts.json").read_text())
    jsonschema.validate(result, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert all(key in result for key in SIX) and result["best_candidate"]["guidance"] and result["pareto_frontier"]
    assert result["digest"] == digest(room / "run") and result["rollouts"]["spent"] == rollouts(room / "run")
    assert (room / "copy.json").read_bytes() == (room / "run" / "optimized_prompts.json").read_bytes()

    traces = [json.loads(line) for line in (room / "run" / "traces.jsonl").read_text().splitlines()]
    cells = [(t["candidate"], t["example"]["id"], t["sample"]) for t in traces]
    assert len(set(cells)) == len(cells) and set(cells) == lessons_told(room / "run")
    for t in traces:
        before, after = t["before"]["value"], t["after"]["value"]
        assert t["delta"] == (None if before is None or after is None else pytest.approx(after - before))
    for path in (room / "run").iterdir():
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} may be read by others"


# -- secrets ----------------------------------------------------------------------------------------------------------

CANARY = "canary-9f2c7d41b8e6a503-do-not-keep"
ENV = {"CANARY_KEY": CANARY, "CANARY_HEADER": CANARY[::-1], "NOT_SO_NAMED": CANARY.upper()}
SHAPES = [form for value in ENV.values() for form in (value, base64.b64encode(value.encode()).decode())]


def leaks(directory: Path, ended: Ended) -> list[str]:
    found = [
        f"{name} holds {shape[:12]}" for name, text in (("stdout", ended.out), ("stderr", ended.err)) for shape in SHAPES if shape in text
    ]
    for path in (p for p in directory.rglob("*") if p.is_file()):
        content = path.read_bytes() + (packed(path) if path.name == "report.html" else b"")
        found += [f"{path.name} holds {shape[:12]}" for shape in SHAPES if shape.encode() in content]
    return found


def packed(page: Path) -> bytes:
    """What the report holds in compressed form."""
    found = re.findall(r'<script type="text/plain" id="d-(?!plotly)\w+">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert len(found) == 5
    return b"".join(zlib.decompress(base64.b64decode(data), -15) for data in found)


def config(tmp_path: Path, school: School) -> Path:
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    headers = {"Authorization": "Bearer ${CANARY_KEY}", "X-Team": "${CANARY_HEADER}"}
    tree: dict[str, Any] = {
        "agents": {
            "student": school.agent(headers=headers, headers_env={"X-Api-Key": "NOT_SO_NAMED"}),
            "teacher": school.model("teacher", api_key_env="CANARY_KEY"),
        },
        "reflection_lm": school.model("reflection", headers={"X-Token": "${CANARY_HEADER}"}),
        "data": {"path": "rows.jsonl"},
        "rim": {"judges": ["exact"]},
        "operators": ["reflect"],
        "max_metric_calls": 40,
        "retry": {"first_wait": 0.01, "longest_wait": 0.02},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "run.yaml"


def test_no_secret_is_kept_or_shown(stage: Stage, tmp_path: Path) -> None:
    """The servers are told the secrets, and say them back in every answer."""
    told = " ".join(SHAPES)
    edit = {"component": "teacher_adaptive_template", "op": "add", "item": None, "text": f"Use {told}."}
    school = School(
        student=lambda body: f"4 {told}",
        teacher=lambda body: f"<teaching>Say {told}</teaching>",
        reflection=lambda body: json.dumps({"diagnosis": told, "edits": [edit]}),
    )
    with opened(school):
        path = config(tmp_path, school)
        ended = stage.run("optimize", path, "--run-dir", tmp_path / "run", env=ENV)
        assert ended.code == 0, ended
        sent = {name.lower(): value for headers in school.headers for name, value in headers.items()}
        assert sent["authorization"] == f"Bearer {CANARY}" and sent["x-api-key"] == CANARY.upper() and sent["x-team"] == CANARY[::-1]
        assert leaks(tmp_path / "run", ended) == []
        shown = stage.run("optimize", path, "--run-dir", tmp_path / "run", "--json", env=ENV)
        assert leaks(tmp_path / "run", shown) == [] and shown.code == 0
        assert "[redacted]" in (tmp_path / "run" / "traces.jsonl").read_text()
        assert leaks(tmp_path / "run", stage.run("report", tmp_path / "run", env=ENV)) == []


def test_no_secret_is_shown_when_a_server_says_it_in_its_refusal(stage: Stage, tmp_path: Path) -> None:
    with opened(School(refuse=f"wrong key {' '.join(SHAPES)}".encode())) as school:
        path = config(tmp_path, school)
        ended = stage.run("optimize", path, "--run-dir", tmp_path / "run", env=ENV)
    assert ended.code == 2 and "auth_refused" in ended.line
    assert leaks(tmp_path / "run", ended) == []
