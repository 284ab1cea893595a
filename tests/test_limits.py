"""The three limits are hard in every command that calls something: what they refuse is unscored, with the reason."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.cli import run


class Model(BaseHTTPRequestHandler):
    """A model that answers 4 in one token, out of 100; slowly where it is asked at /slow."""

    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        if self.path.startswith("/slow"):
            time.sleep(3)
        message = {"message": {"content": '{"score": 0.8}'}, "finish_reason": "stop"}
        body = json.dumps({"choices": [message], "usage": {"prompt_tokens": 99, "completion_tokens": 1}}).encode()
        try:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # whoever asked has gone
            pass

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with q.jsonl, and rim.yaml and slow.yaml whose judge is that model."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    Model.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, path in (("rim", "/v1"), ("slow", "/slow")):
            params = {"base_url": f"http://127.0.0.1:{server.server_address[1]}{path}", "model": "m", "price": {"input": 1e4, "output": 0}}
            judge = {"type": "llm", "rubric": "quality", "draws": 1, "model": {"provider": "openai.chat", "params": params}}
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"rim": {"judges": [judge], "concurrency": 1}}))
        rows = [{"prompt": f"q{n}", "response": "r", "question": f"q{n}", "answer": "a"} for n in range(12)]
        (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield tmp_path
        server.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("flags", "most"),
    [(["--max-tokens", "1500"], 14), (["--max-usd", "3"], 4), (["--max-minutes", "0.00001"], 0)],
)
def test_rim_score(place: Path, flags: list[str], most: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["rim", "score", "--dataset", "q.jsonl", "--config", "rim.yaml", "--json", "o.json", *flags]) == 1
    scores = json.loads((place / "o.json").read_text())
    known = [row for row in scores if row["score"] is not None]
    assert len(known) == Model.asked <= most and len(known) < 12
    assert {row["missing"]["kind"] for row in scores if row["score"] is None} == {"budget_exhausted"}


def test_a_deadline_ends_calls_that_are_under_way(place: Path) -> None:
    began = time.monotonic()
    assert run(["rim", "score", "--prompt", "p", "--response", "r", "--config", "slow.yaml", "--max-minutes", "0.005"]) == 1
    assert time.monotonic() - began < 2.5


def test_rim_audit(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(["rim", "audit", "--dataset", "q.jsonl", "--config", "rim.yaml", "--max-tokens", "1500"])
    assert Model.asked <= 14
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_whose_judge_is_refused_ends_with_a_result(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A judge's call that a limit refuses is no crash: the search ends, and the file says why."""
    rim = yaml.safe_load((place / "rim.yaml").read_text())["rim"]
    tree = {
        "agents": {"student": {"provider": "toyworld", "params": {"world": {"seed": 3}}}},
        "data": {"toyworld": {"seed": 3}},
        "rim": {"judges": rim["judges"]},
        "operators": ["ablate"],
        "max_metric_calls": 100,
    }
    (place / "run.yaml").write_text(yaml.safe_dump(tree))
    assert run(["optimize", "run.yaml", "--max-tokens", "4000", "--quiet"]) == 0, capfd.readouterr().err
    assert "Stopped: tokens" in capfd.readouterr().out or Model.asked <= 40
    spend = json.loads((place / "runs" / "run" / "optimized_prompts.json").read_text())["spend"]
    total = sum(u["input_tokens"] + u["output_tokens"] for u in spend.values())
    assert total <= 4000


def test_the_search_stays_within_the_time(place: Path) -> None:
    tree = {
        "agents": {"student": {"provider": "toyworld", "params": {"world": {"seed": 3}, "latency": 0.2}}},
        "data": {"toyworld": {"seed": 3}},
        "operators": ["ablate"],
        "concurrency": 2,
        "max_metric_calls": 5000,
    }
    (place / "run.yaml").write_text(yaml.safe_dump(tree))
    began = time.monotonic()
    assert run(["optimize", "run.yaml", "--max-minutes", "0.05", "--quiet"]) == 0
    assert time.monotonic() - began < 3.0 + 2.5  # the rest is start and reports, on a busy machine
    found = json.loads((place / "runs" / "run" / "optimized_prompts.json").read_text())
    assert "deadline" in json.dumps(found)
