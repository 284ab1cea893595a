"""Examples that lie elsewhere: real servers on loopback, files on disk, a data set by name. A source that fails is an error."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.data import DataConfig, Dataset, load_examples
from gepa_atlas.errors import ConfigError, DataError, MissingExtra
from gepa_atlas.settings import load

ITEMS = [{"body": {"text": f"What is {n}?"}, "gold": [str(n)], "set": ("train", "val", "test")[n % 3]} for n in range(9)]
ALERTS = {
    "status": "success",
    "data": {
        "alerts": [
            {"state": "firing", "labels": {"alertname": f"High{n}", "pod": f"p{n}"}, "annotations": {"description": f"CPU {n} %"}}
            for n in range(12)
        ]
        + [{"state": "pending", "labels": {"alertname": "Quiet"}, "annotations": {}}]
    },
}
ANSWERS: dict[str, tuple[int, bytes]] = {
    "/items": (200, json.dumps({"data": {"items": ITEMS}}).encode()),
    "/list": (200, json.dumps(ITEMS).encode()),
    "/alerts": (200, json.dumps(ALERTS).encode()),
    "/silence": (200, b'{"status": "success", "data": {"alerts": []}}'),
    "/html": (200, b"<html>"),
    "/down": (500, b'{"error": "database on fire"}'),
    "/secret": (401, b"no"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS.get(self.path, (404, b"no such page"))
        if self.path == "/secret" and self.headers["authorization"] == "Bearer s3cret-value":
            status, body = ANSWERS["/list"]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


COLUMNS = {"question": "body.text", "answer": "gold", "split": "set"}


def examples(base_dir: Path = Path("."), **config: Any) -> Dataset:
    return load_examples(load(DataConfig, config, "data"), base_dir)


def refusal(base_dir: Path = Path("."), **config: Any) -> str:
    with pytest.raises(DataError) as caught:
        examples(base_dir, **config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_items_of_an_http_api_with_their_fields_mapped(server: str) -> None:
    found = examples(http={"url": f"{server}/items", "items_path": "data.items"}, columns=COLUMNS)
    assert found.sizes() == "3 train, 3 val, 3 test"
    assert {(e.question, e.answers) for e in found.examples} == {(f"What is {n}?", (str(n),)) for n in range(9)}
    assert examples(http={"url": f"{server}/list"}, columns=COLUMNS).fingerprint == found.fingerprint


def test_it_loads_where_an_event_loop_runs(server: str) -> None:
    async def inside() -> Dataset:
        return examples(http={"url": f"{server}/list"}, columns=COLUMNS)

    assert len(asyncio.run(inside()).examples) == 9


def test_a_key_in_a_header_is_read_from_its_variable(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_KEY", "s3cret-value")
    http = {"url": f"{server}/secret", "headers": {"Authorization": "Bearer ${DATA_KEY}"}}
    assert len(examples(http=http, columns=COLUMNS).examples) == 9


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        ("/nowhere", {}, "answered 404: no such page"),
        ("/down", {}, "answered 500: database on fire"),
        ("/secret", {}, "answered 401"),
        ("/html", {}, "not JSON"),
        ("/items", {}, "a dict where the list of items belongs; set items_path"),
        ("/items", {"items_path": "data.rows"}, "there is no 'rows' on the way to items_path 'data.rows'; what is there has items"),
        ("/items", {"items_path": "data.items.x"}, "what is there is a list"),
        ("/list", {"max_bytes": 10}, "sent more than 10 bytes"),
    ],
)
def test_an_api_that_fails_is_named_and_never_empty(server: str, path: str, more: dict[str, Any], says: str) -> None:
    assert says in refusal(http={"url": server + path, **more})


def test_a_server_that_is_not_there() -> None:
    assert "no complete answer from http://127.0.0.1:9" in refusal(http={"url": "http://127.0.0.1:9/x"})
    with pytest.raises(ConfigError, match="must be an http:// or https:// address"):
        load(DataConfig, {"http": {"url": "x"}}, "data")


def test_columns_that_are_not_there_show_those_that_are(server: str) -> None:
    assert "no column 'body.txt' for the question; the columns are body, gold, set" in refusal(
        http={"url": f"{server}/list"}, columns={"question": "body.txt"}
    )


def test_firing_alerts_are_questions_without_gold(server: str) -> None:
    found = examples(prometheus={"url": f"{server}/alerts"})
    assert len(found.examples) == 12 and not any(e.answers for e in found.examples)
    assert any(e.question == "High3: CPU 3 %" and e.context == '{"pod": "p3"}' for e in found.examples)
    assert any("no gold answer" in note for note in found.notes)
    assert "no alert is firing" in refusal(prometheus={"url": f"{server}/silence"})
    assert "not an answer of Prometheus" in refusal(prometheus={"url": f"{server}/list"})


def itbench(directory: Path, incidents: int = 9) -> Path:
    for name in ("specs", "ground_truths"):
        (directory / name).mkdir(parents=True)
    for n in range(incidents):
        spec = f"metadata: {{name: incident {n}, platform: k8s, complexity: low}}\nspec: {{faults: [{{kind: cpu, target: svc{n}}}]}}\n"
        (directory / "specs" / f"i{n}.yaml").write_text(spec)
        truth = f"groups: [{{id: svc{n}, root_cause: true}}, {{id: web}}]\npropagations: [{{source: svc{n}, target: web, effect: slow}}]\n"
        (directory / "ground_truths" / f"i{n}.yaml").write_text(truth)
    return directory


def test_itbench_incidents(tmp_path: Path) -> None:
    itbench(tmp_path / "files")
    (tmp_path / "files" / "ground_truths" / "i3.yaml").unlink()
    found = examples(tmp_path, itbench={"scenarios_dir": "files"}, split={"train": 0.5, "val": 0.5})
    assert {e.id for e in found.examples} == {f"i{n}" for n in range(9) if n != 3}
    example = next(e for e in found.examples if e.id == "i1")
    assert example.question.splitlines()[0] == "Incident: incident 1" and '"target": "svc1"' in example.question
    gold = json.loads(example.answers[0])
    assert gold["entities"] == [{"id": "svc1", "root_cause": True}, {"id": "web", "root_cause": False}]
    assert gold["propagations"] == [{"source": "svc1", "target": "web", "condition": "", "effect": "slow"}]
    assert any("1 of 9 incidents have no ground truth and are left out: i3" in note for note in found.notes)
    (tmp_path / "files" / "specs" / "i1.yaml").write_text("a: [")
    assert "i1.yaml: not valid YAML" in refusal(tmp_path, itbench={"scenarios_dir": "files"})
    (tmp_path / "files" / "specs" / "i1.yaml").write_text("a: 1")
    assert "i1.yaml: not an ITBench incident" in refusal(tmp_path, itbench={"scenarios_dir": "files"})
    assert "has no .yaml file" in refusal(tmp_path, itbench={"scenarios_dir": "nowhere"})


def test_a_function_takes_arguments_by_place(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def load(n):\n    return [{'question': f'q{i}', 'answer': str(i)} for i in range(n)]\n")
    assert len(examples(tmp_path, function="m.py:load", args=[40]).examples) == 40


def test_a_data_set_by_name_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "datasets" else find(name, *more))
    with pytest.raises(MissingExtra, match=r"pip install 'gepa-atlas\[datasets\]'"):
        examples(dataset="gsm8k-zh")


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs the extra [datasets]")
def test_a_data_set_through_the_package_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"q": f"q{n}", "a": str(n)}) + "\n" for n in range(30)))
    source = {"name": "json", "data_files": str(tmp_path / "rows.jsonl")}
    found = examples(tmp_path, dataset=source, columns={"question": "q", "answer": "a"})
    assert len(found.examples) == 30
    assert "cannot be loaded" in refusal(dataset={"name": "nobody/nothing-of-this-name"})
