"""Canaries: a secret in the environment, in headers, in prompts, in a model's error, in a question, and a pattern of the configuration.
None of them is in a byte of the store, its log, a dump of the server, or an export."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from gepa_atlas.cli import run
from gepa_atlas.memory import exchange, query, rows
from gepa_atlas.memory.query import Filter
from gepa_atlas.memory.review import review
from gepa_atlas.memory.store import Memory
from gepa_atlas.testing.postgres import Postgres

from ..story.school import School, opened
from .lines import lesson_line, session_line

ENVIRONMENT = "canary/in+the environment=1"
HEADER = "canary-in-a-header-2"
SHAPE = "sk-canaryInAPrompt0123456789"
PATTERN = "ACME-4711"
CANARIES = {
    "environment": [ENVIRONMENT, quote(ENVIRONMENT, safe=""), base64.b64encode(ENVIRONMENT.encode()).decode()],
    "header": [HEADER],
    "shape of a key": [SHAPE],
    "configured pattern": [PATTERN],
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", ENVIRONMENT)
    monkeypatch.setenv("HEADER_TOKEN", HEADER)


def found(content: bytes) -> list[str]:
    spellings = {spelling: name for name, all_ in CANARIES.items() for spelling in all_}
    escaped = {json.dumps(spelling)[1:-1]: name for spelling, name in spellings.items()}
    return sorted({name for spelling, name in {**spellings, **escaped}.items() if spelling.encode() in content})


def everything(place: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file())


def polluted(school: School, place: Path) -> Path:
    """A configuration whose agent, judge and data all try to get a canary on record."""
    data = place / "data.jsonl"
    asked = [{"id": f"q{n} {PATTERN}", "question": f"Parcel {n}? My key is {SHAPE}, order {PATTERN}.", "answer": f"{n}"} for n in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in asked))
    path = place / "mine.yaml"
    params = {"endpoint": f"{school.address}/student", "headers": {"Authorization": "Bearer ${HEADER_TOKEN}"}}
    judge = {"type": "llm", "model": {"provider": "openai.chat", "params": {"model": "m", "base_url": f"{school.address}/teacher"}}}
    path.write_text(
        yaml.safe_dump(
            {
                "agents": {"student": {"provider": "http.api", "params": params}},
                "seed_prompts": {"guidance": f"Use {PATTERN}."},
                "rim": {"judges": ["exact", judge], "quorum": 0.5},
                "data": {"path": str(data)},
                "operators": ["edit"],
                "max_metric_calls": 40,
            }
        )
    )
    return path


def test_a_run_that_is_full_of_secrets(told: None, tmp_path: Path, postgres: Postgres, capfd: pytest.CaptureFixture[str]) -> None:
    def student(body: dict[str, object]) -> str:
        return f"{PATTERN} {SHAPE} {ENVIRONMENT} {HEADER} {quote(ENVIRONMENT, safe='')} {base64.b64encode(ENVIRONMENT.encode()).decode()}"

    def judge(body: dict[str, object]) -> str:
        return f"{ENVIRONMENT} {SHAPE} {PATTERN}"

    url, store = postgres.database("canary"), tmp_path / "store"
    with opened(School(student=student, teacher=judge)) as school:
        config = polluted(school, tmp_path)
        how = ["optimize", str(config), "--quiet", "--set", "memory.redact=['ACME-\\d+']", "--set"]
        assert run([*how, f"memory.url={store}/m.db", "--run-dir", str(tmp_path / "one")]) == 0
        assert run([*how, f"memory.url={url}", "--run-dir", str(tmp_path / "two")]) == 0
    for directory, where in (("one", f"{store}/m.db"), ("two", url)):
        assert run(["traces", "import", str(tmp_path / directory), "--memory", where]) == 0, "the run's own patterns hold"
    with Memory.open(f"{store}/m.db") as memory:  # the log is there while a connection is open
        assert len(query.ids(memory, Filter())) > 10
        review(memory, query.ids(memory, Filter())[:1], "approved", "note")
        for suffix in ("jsonl", "parquet"):
            assert run(["traces", "export", str(store / f"out.{suffix}"), "--memory", f"{store}/m.db"]) == 0
        assert (store / "m.db-wal").stat().st_size > 0
        content = everything(store)
    assert b"[redacted]" in content, "the canaries were there to be cut out"
    assert found(content) == []
    assert found(postgres.dump("canary")) == []
    assert found((store / "out.parquet").read_bytes() + _unpacked(store / "out.parquet")) == []
    assert found("".join(capfd.readouterr()).encode()) == []
    ours = everything(tmp_path / "one") + everything(tmp_path / "two")
    assert "environment" not in found(ours) and "header" not in found(ours), "the run directories hold neither"


def _unpacked(path: Path) -> bytes:
    import pyarrow.parquet as pq

    return json.dumps(pq.read_table(path).to_pylist()).encode()


def test_every_way_in(told: None, opened: Callable[..., Memory], tmp_path: Path, request: pytest.FixtureRequest, url: str) -> None:
    """Sessions, notes, names and unknown fields too."""
    from gepa_atlas.secrets import watch_environment

    watch_environment()
    canary = f"{ENVIRONMENT} {SHAPE} {PATTERN}"
    memory = opened(redact=(r"ACME-\d+",))
    session = session_line(canary, **{canary: [canary, {canary: canary}], "learning_key": canary})
    lesson = rows.lesson({**lesson_line(canary, candidate=canary, question=canary), canary: canary}, canary, canary, 1.0)
    memory.add([rows.session(session, canary, 1.0), lesson])
    review(memory, query.ids(memory, Filter()), "quarantined", canary)
    memory.put_run(
        {
            "run_id": canary, "name": canary, "operation": canary, "status": "finished", "started": 1.0, "judges": canary,
            "source": canary, "config": {canary: [canary]},
        }
    )  # fmt: skip
    memory.put_evidence(canary, [{"item_id": "i", "component": canary, "text": canary}], [])
    exchange.as_jsonl(query.lines(memory, Filter(), None), tmp_path / "out.jsonl")
    if memory.engine.dialect.name == "postgresql":
        running: Postgres = request.getfixturevalue("postgres")
        content = running.dump(url.rpartition("/")[2])
    else:
        content = b""
    content += everything(tmp_path)
    assert b"[redacted]" in content
    assert found(content) == []
