"""Sinks of a real run: what they are told is what happened, none of them can touch the run, and no secret reaches any."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from gepa_atlas import loop
from gepa_atlas.build import build_experiment
from gepa_atlas.cli import run as cli
from gepa_atlas.config import load_config
from gepa_atlas.observe.config import PrometheusConfig
from gepa_atlas.observe.facts import CallEnded, Fact, RunBegan, RunEnded, Sink, SlotDecided
from gepa_atlas.observe.observing import Observing
from gepa_atlas.store.view import RunView

pytest.importorskip("opentelemetry.sdk", reason="the extra [observability] is not installed; [dev] has it")
pytest.importorskip("prometheus_client", reason="the extra [observability] is not installed; [dev] has it")

ROOT = Path(__file__).parent.parent.parent
TOY = ROOT / "configs/examples/toyworld.yaml"
SETS = ["max_metric_calls=60", "agents.student.params.faults.rate=0.1", "retry.first_wait=0"]
CANARY = "canary-0123456789-abcdef"


class Listening:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.closed = False

    def take(self, fact: Fact) -> None:
        self.facts.append(fact)

    def close(self) -> None:
        self.closed = True


def searched(directory: Path, sinks: dict[str, Sink], *sets: str) -> tuple[loop.Result, list[str]]:
    """A run with these sinks, and what was said of them."""
    said: list[str] = []
    live = Observing(sinks, say=said.append)
    loaded = load_config(TOY, [*SETS, *sets, f"run_dir={json.dumps(str(directory))}"])
    try:
        return loop.run(build_experiment(loaded, on_call=live.on_call), directory, live), said
    finally:
        live.close()


def of(kind: type[Any], facts: list[Fact]) -> list[Any]:
    return [fact for fact in facts if isinstance(fact, kind)]


def test_facts_are_what_happened(tmp_path: Path) -> None:
    sink = Listening()
    result, said = searched(tmp_path / "run", {"mine": sink})
    assert said == [] and sink.closed
    assert isinstance(sink.facts[0], RunBegan) and isinstance(sink.facts[-1], RunEnded)
    with RunView.read(tmp_path / "run") as run:
        calls = run.calls()
        decisions = [e.payload["decision"] for e in run.events() if e.kind == "slot" and e.payload["decision"]["kind"] != "idle"]
    assert [d.decision.to_json() for d in of(SlotDecided, sink.facts)] == decisions
    assert len(of(CallEnded, sink.facts)) == calls["rollouts"] == result.rollouts > 40
    assert all(c.slot_began <= c.ended and c.began <= c.ended for c in of(CallEnded, sink.facts))
    end = sink.facts[-1]
    assert end.figures["calls_student"] == result.spend["student"].calls and end.figures["test_gain"] == result.verdict.gain
    pairs = [(x.before.value, x.after.value) for x in result.lessons if x.before.value is not None and x.after.value is not None]
    assert end.figures["delta"] == pytest.approx(sum(a - b for b, a in pairs) / len(pairs))
    assert end.figures["non_degradation_rate"] == pytest.approx(sum(a >= b for b, a in pairs) / len(pairs))
    assert end.figures["coverage"] == pytest.approx(len(pairs) / len(result.lessons))
    again = Listening()
    searched(tmp_path / "run", {"mine": again})
    assert of(SlotDecided, again.facts) == of(CallEnded, again.facts) == []  # an earlier process has told of them
    assert {k: v for k, v in again.facts[-1].figures.items() if k in ("delta", "coverage")} == {
        k: end.figures[k] for k in ("delta", "coverage")
    }


class Failing(Listening):
    def take(self, fact: Fact) -> None:
        super().take(fact)
        if len(self.facts) == 3:
            raise RuntimeError(f"the network is gone {CANARY}")


class Stuck(Listening):
    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def take(self, fact: Fact) -> None:
        self.free.wait(60)


def test_a_sink_that_fails_or_hangs_is_said_once_and_the_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gepa_atlas.observe.observing._PATIENCE", 0.5)
    alone, _ = searched(tmp_path / "alone", {})
    failing, stuck, good = Failing(), Stuck(), Listening()
    began = time.monotonic()
    result, said = searched(tmp_path / "run", {"failing": failing, "stuck": stuck, "good": good})
    assert result.digest == alone.digest and time.monotonic() - began < 30
    stuck.free.set()
    assert len(failing.facts) == 3 and good.closed
    assert sorted(text.split()[0] for text in said) == ["observe.failing", "observe.stuck"]
    assert "the network is gone" in next(text for text in said if "failing" in text)


def test_spans_are_nested_and_carry_the_reasons(tmp_path: Path) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from gepa_atlas.observe.otel import Spans

    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    result, said = searched(tmp_path / "run", {"opentelemetry": Spans(provider, provider.shutdown)})
    assert said == []
    spans = kept.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}
    roots = [span for span in spans if span.parent is None]
    assert [span.name for span in roots] == ["gepa_atlas.run"] and roots[0].attributes["gepa_atlas.ruling"] == result.verdict.ruling.value
    slots = {span.attributes["gepa_atlas.slot"]: span for span in spans if span.name == "gepa_atlas.slot"}
    decided = {d.n: d for d in result.evolution.decisions if d.kind.value != "idle"}
    assert slots.keys() == decided.keys()
    assert all(slots[n].attributes["gepa_atlas.reason"] == decided[n].reason for n in decided)
    calls = [span for span in spans if span.name == "gepa_atlas.call student"]
    assert len(calls) == result.rollouts and {by_id[span.parent.span_id].name for span in calls} <= {"gepa_atlas.slot", "gepa_atlas.run"}
    assert all(span.start_time <= span.end_time for span in spans)
    assert sum(span.attributes["gen_ai.usage.input_tokens"] for span in calls) == result.spend["student"].input_tokens


def test_prometheus_says_the_figures_of_the_run(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families as families

    from gepa_atlas.observe.prometheus import Metrics

    metrics = Metrics(PrometheusConfig(port=0, textfile=str(tmp_path / "run.prom")))
    page = urlopen(f"http://127.0.0.1:{metrics.port}/metrics").read().decode()
    assert "gepa_atlas_running 0.0" in page
    result, said = searched(tmp_path / "run", {"prometheus": metrics})
    assert said == []
    samples = {(s.name, *sorted(s.labels.items())): s.value for f in families((tmp_path / "run.prom").read_text()) for s in f.samples}
    lessons = [x for x in result.lessons if x.delta is not None]
    assert samples[("gepa_atlas_delta_count",)] == len(lessons)
    assert samples[("gepa_atlas_figure", ("name", "delta"))] == pytest.approx(sum(x.delta or 0.0 for x in lessons) / len(lessons))
    assert samples[("gepa_atlas_lessons_total", ("outcome", "scored"))] == len(lessons)
    assert sum(v for k, v in samples.items() if k[0] == "gepa_atlas_calls_total") == result.rollouts
    assert samples[("gepa_atlas_tokens_total", ("direction", "in"), ("role", "student"))] == result.spend["student"].input_tokens
    assert 0 <= samples[("gepa_atlas_non_degradation_rate",)] <= 1
    assert samples[("gepa_atlas_figure", ("name", "test_gain"))] == pytest.approx(result.verdict.gain)
    with pytest.raises(OSError):
        urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=1)  # the server ended with the run


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: making its database, MLflow waits for the disk some hundred times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """What a collector on loopback is sent."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


AGENT = f"""
def answer(question, guidance):
    if guidance and question.endswith("3"):
        raise ValueError("my key is {CANARY}")
    return question.split()[-1] + " {CANARY}"
"""


def canary_config(place: Path, endpoint: str) -> Path:
    (place / "agent.py").write_text(AGENT)
    rows = [{"question": f"Spell {CANARY} {c}{n}", "answer": f"{c}{n} {CANARY}"} for c in "abcdef" for n in range(6)]
    (place / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "agents": {"student": {"provider": "python.callable", "params": {"callable": "agent.py:answer"}}},
        "data": {"path": "data.jsonl"},
        "rim": {"judges": ["contains"]},
        "seed_prompts": {"guidance": f"The key is {CANARY}."},
        "max_metric_calls": 40,
        "observe": {
            "opentelemetry": {"endpoint": endpoint},
            "prometheus": {"textfile": str(place / "out" / "run.prom")},
            "mlflow": {"tracking_uri": f"sqlite:///{place}/out/mlflow.db"},
            "wandb": {"directory": str(place / "out")},
            "trackio": {"directory": str(place / "out" / "trackio")},
        },
    }
    (place / "out").mkdir()
    (place / "secret.yaml").write_text(json.dumps(config))
    return place / "secret.yaml"


def test_every_sink_is_fed_by_one_command_and_no_secret_reaches_any(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("mlflow", "wandb", "trackio"):
        pytest.importorskip(name, reason=f"the extra [{name}] is not installed; [dev] has it")
    monkeypatch.setenv("MY_AGENT_API_KEY", CANARY)
    with collector() as (endpoint, got):
        code = cli(["optimize", str(canary_config(quick, endpoint)), "--run-dir", str(quick / "run"), "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]  # nothing else was printed by any of them
    assert [e["text"] for e in events if e["event"] == "note" and "observe" in e["text"]] == [] and err == ""
    assert got and any(b"gepa_atlas.slot" in body for body in got)
    steps = [e["state"]["rollouts"] for e in events if e["event"] == "decision"]
    with closing(sqlite3.connect(quick / "out" / "mlflow.db")) as store:
        assert store.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
        logged = {step for (step,) in store.execute("SELECT step FROM metrics WHERE key = 'delta'").fetchall()}
        assert logged >= set(steps)
    written = [path for path in (quick / "out").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written) and any("trackio" in str(path) and path.suffix == ".db" for path in written)
    for path in [*written, *(p for p in (quick / "run").rglob("*") if p.is_file())]:
        assert CANARY.encode() not in path.read_bytes(), path
    assert not any(CANARY.encode() in body for body in got) and CANARY not in out


def test_what_cannot_work_is_refused_before_the_run_and_what_breaks_later_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["optimize", str(TOY), "--max-metric-calls", "40", "--run-dir", str(tmp_path / "run"), "--json"]
    for value, said in (
        ("{prometheus: {}}", "give one of them"),
        ("{prometheus: {textfile: a.txt}}", ".prom"),
        ("{mlfow: {}}", "mlflow"),
        ("{wandb: {mode: sideways}}", "sideways"),
    ):
        assert cli([*base, "--set", f"observe={value}"]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and not (tmp_path / "run" / "run.db").exists()
    pytest.importorskip("mlflow", reason="the extra [mlflow] is not installed; [dev] has it")
    assert cli([*base, "--set", "observe={mlflow: {tracking_uri: 'file:/proc/none'}}"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    notes = [e["text"] for e in events if e["event"] == "note" and "observe.mlflow failed" in e["text"]]
    assert len(notes) == 1 and events[-1]["event"] == "finish"
