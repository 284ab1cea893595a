"""Whatever is wrong with what a user gives: exit code 2, one line that names it, no traceback; nothing is spent on it."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.story.stage import TOY, Ended, Stage

ROWS = "".join(json.dumps({"question": f"What is {n} + {n}?", "answer": str(2 * n)}) + "\n" for n in range(40))
AGENT = "def answer(prompt):\n    return '4'\n"


def base() -> dict[str, Any]:
    return {
        "agents": {"student": {"provider": "python.callable", "params": {"callable": "agent.py:answer"}}},
        "data": {"path": "rows.jsonl"},
        "rim": {"judges": ["exact"]},
        "operators": ["edit"],
        "max_metric_calls": 40,
    }


@pytest.fixture
def refuse(stage: Stage, tmp_path: Path) -> Callable[..., str]:
    """The one line with which `optimize` refuses a configuration: the base with keys replaced, or a whole text."""
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "agent.py").write_text(AGENT)

    def call(change: dict[str, Any] | str, *arguments: str | Path, starts: bool = False) -> str:
        text = change if isinstance(change, str) else yaml.safe_dump({k: v for k, v in (base() | change).items() if v is not None})
        (tmp_path / "run.yaml").write_text(text)
        ended = stage.run("optimize", tmp_path / "run.yaml", "--run-dir", tmp_path / "run", *arguments, cwd=tmp_path)
        return refused(ended, tmp_path / "run", starts)

    return call


def refused(ended: Ended, directory: Path, starts: bool) -> str:
    line = ended.line  # one line that opens with `error: `
    assert ended.code == 2, ended
    assert len(line) < 600 and "Traceback" not in ended.out
    assert starts or not directory.exists(), "a run was begun"
    return line


def student(provider: str, **params: Any) -> dict[str, Any]:
    return {"student": {"provider": provider, "params": params}}


def model(**params: Any) -> dict[str, Any]:
    return student("chat", **params)


CASES: dict[str, tuple[dict[str, Any] | str, str]] = {
    "missing data file": ({"data": {"path": "none.jsonl"}}, "none.jsonl: no such data file"),
    "empty data": ({"data": {"path": "empty.jsonl"}}, "empty.jsonl: no examples in it"),
    "data that is no JSON": ({"data": {"path": "agent.py"}}, "unknown data format .py"),
    "unknown provider": ({"agents": student("python.callible")}, "did you mean 'python.callable'?"),
    "unknown provider of a model": ({"agents": model(model="lokal")}, "did you mean 'local'?"),
    "unknown key": ({"max_metric_cals": 3}, "max_metric_cals: unknown key; did you mean 'max_metric_calls'?"),
    "unknown key further down": ({"data": {"path": "rows.jsonl", "colums": {}}}, "data.colums: unknown key; did you mean 'columns'?"),
    "unknown parameter": ({"agents": student("python.callable", calable="a:b")}, "did you mean 'callable'?"),
    "missing key": ({"agents": None}, "agents: this key is required"),
    "unset variable": ({"agents": model(model="${NO_SUCH_MODEL_NAME}")}, "NO_SUCH_MODEL_NAME, which is not set"),
    "unset secret": (
        {"agents": model(model={"provider": "openai.chat", "params": {"model": "m", "api_key_env": "NO_SUCH_KEY"}})},
        "NO_SUCH_KEY",
    ),
    "a secret in the file": ({"agents": model(model="${X:sk-" + "a1B2" * 8 + "}")}, "looks like a secret"),
    "invalid YAML": ("agents: {student: [}\n", "run.yaml:1: not valid YAML"),
    "duplicate keys": ("seed: 1\nseed: 2\n", "run.yaml:2: not valid YAML: the key 'seed' is given twice"),
    "a list where a mapping belongs": ("- 1\n- 2\n", "a configuration is a mapping"),
    "an empty file": ("", "agents: this key is required"),
    "a number out of range": ({"max_metric_calls": 0}, "max_metric_calls: "),
    "a word for a number": ({"width": "wide"}, "width: "),
    "bad regex in a judge": ({"rim": {"judges": [{"type": "regex", "pattern": "(unclosed"}]}}, "rim.judges.0"),
    "bad schema in a judge": ({"rim": {"judges": [{"type": "json_schema", "schema": {"type": "strnig"}}]}}, "rim.judges.0"),
    "unknown judge": ({"rim": {"judges": ["exakt"]}}, "did you mean 'exact'?"),
    "no judge": ({"rim": {"judges": []}}, "rim.judges"),
    "gold answers missing": ({"data": {"path": "goldless.jsonl"}}, "no gold answer, which judge 'exact' needs"),
    "unknown operator": ({"operators": ["edits"]}, "did you mean 'edit'?"),
    "reflection without a model": ({"operators": ["reflect"]}, "needs a reflection model"),
    "lesson without a teacher": ({"protocol": "lesson"}, "needs a teacher model"),
    "a prompt that lost its placeholder": (
        {
            "agents": base()["agents"] | {"teacher": {"provider": "openai.chat", "params": {"model": "m", "base_url": "http://127.0.0.1:9"}}},
            "seed_prompts": {"teacher_adaptive_template": "Teach {question}."},
        },
        "lost its required placeholder {attempt}",
    ),
    "a prompt that is too long": ({"seed_prompts": {"guidance": "x" * 9000}}, "9000 characters; the limit is 8000"),
    "a prompt with a control character": ({"seed_prompts": {"guidance": "a\x00b"}}, "seed_prompts"),
    "output is a directory": ({"output": "."}, "this is a directory"),
    "output below a file": ({"output": "agent.py/best.json"}, "cannot be written"),
    "traces below a file": ({"trace_storage": "agent.py/t.jsonl"}, "cannot be written"),
    "no such program": ({"agents": student("cli.command", argv=["no-such-program-here"])}, "no-such-program-here"),
    "a shell line for a program": ({"agents": student("cli.command", argv="cat | wc")}, 'write it as ["cat", "|", "wc"]'),
    "no such function": ({"agents": student("python.callable", callable="agent.py:anser")}, "anser"),
    "a function that breaks on import": ({"agents": student("python.callable", callable="broken.py:f")}, "broken.py"),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_one_line_and_nothing_spent(refuse: Callable[..., str], tmp_path: Path, what: str) -> None:
    change, says = CASES[what]
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "goldless.jsonl").write_text("".join(json.dumps({"question": f"q{n}"}) + "\n" for n in range(40)))
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere\n")
    assert says in refuse(change)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("width", "--set 'width': write it as key.below=value"),
        ("=3", "write it as key.below=value"),
        ("wdith=3", "wdith: unknown key; did you mean 'width'?"),
        ("width=[", "--set width"),
        ("width.deep=3", "width"),
        ("rim.judges.7=exact", "7 is not an index of a list of 1"),
        ("agents.student.params.callable=${NO_SUCH_VARIABLE_SET}", "NO_SUCH_VARIABLE_SET, which is not set"),
    ],
)
def test_a_bad_override(refuse: Callable[..., str], assignment: str, says: str) -> None:
    assert says in refuse({}, "--set", assignment)


def test_a_bad_command_line(stage: Stage, tmp_path: Path) -> None:
    missing = stage.run("optimize", tmp_path / "no.yaml", "--run-dir", tmp_path / "run")
    assert f"{tmp_path / 'no.yaml'}: no such file" in refused(missing, tmp_path / "run", False)
    assert "this is a directory" in refused(stage.run("optimize", tmp_path, "--run-dir", tmp_path / "run"), tmp_path / "run", False)
    for arguments in (
        ["optimise"],
        ["optimize"],
        ["optimize", TOY, "--sett", "a=b"],
        ["optimize", TOY, "--max-usd", "few"],
        ["runs", "shw"],
    ):
        ended = stage.run(*arguments, cwd=tmp_path)
        assert ended.code == 2 and ended.line
    for command in ("show", "digest", "calls"):
        assert "nowhere" in refused(stage.run("runs", command, "nowhere", cwd=tmp_path), tmp_path / "run", False)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(stage.run("optimize", TOY, "--run-dir", tmp_path / "file" / "run"), tmp_path / "run", False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_leave(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot be written" in refused(stage.run("optimize", TOY, "--run-dir", tmp_path / "closed" / "run"), tmp_path / "run", False)
    assert "cannot be written" in refused(
        stage.run("optimize", TOY, "--set", f"output={tmp_path / 'closed' / 'o.json'}", "--run-dir", tmp_path / "run"),
        tmp_path / "run",
        False,
    )


# -- agents that are there and of no use ------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Answers every POST with `status` and `body`; counts them."""

    protocol_version = "HTTP/1.1"
    status, body = 200, b"{}"
    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def server(status: int, body: bytes) -> Iterator[tuple[str, type[Handler]]]:
    handler = type("Scripted", (Handler,), {"status": status, "body": body, "asked": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/answer", handler
        finally:
            listening.shutdown()
            thread.join()


def http_agent(address: str) -> dict[str, Any]:
    return {"agents": student("http.api", endpoint=address, timeout=0.3), "retry": {"first_wait": 0.01, "longest_wait": 0.02}}


@pytest.mark.parametrize(
    ("status", "body", "says", "most"),
    [
        (200, b'{"reply": "4"}', "without the field 'response'", 7),
        (200, b"<html>It works!</html>", "garbled", 7),
        (200, b'{"response": ""}', "answered nothing", 1),
        (200, b'{"response": null}', "answered nothing", 1),
        (401, b'{"error": "who are you"}', "auth_refused", 1),
        (404, b"", "not_found", 1),
        (500, b"", "server_fault", 7),
    ],
)
def test_an_agent_that_answers_nonsense(refuse: Callable[..., str], status: int, body: bytes, says: str, most: int) -> None:
    with server(status, body) as (address, handler):
        line = refuse(http_agent(address), starts=True)
    assert says in line and "gave no usable answer to example" in line and "gepa-atlas check" in line
    assert 1 <= handler.asked <= most


def test_an_agent_that_never_answers(refuse: Callable[..., str]) -> None:
    """The connection is accepted and nothing comes, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        line = refuse(http_agent(f"http://127.0.0.1:{listening.getsockname()[1]}/answer"), starts=True)
    assert "(timeout)" in line and "0.3" in line


def test_an_agent_that_is_not_there(refuse: Callable[..., str]) -> None:
    assert "(unreachable)" in refuse(http_agent("http://127.0.0.1:9/answer"), starts=True)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def answer(prompt):\n    raise RuntimeError('no\\nluck')\n", "RuntimeError: no luck"),
        ("def answer(prompt):\n    return 4\n", "returned a int, not text"),
        ("def answer(prompt):\n    return None\n", "answered nothing"),
        ("def answer(prompt):\n    raise SystemExit(3)\n", "SystemExit"),
        ("import threading\ndef answer(prompt):\n    threading.Event().wait()\n", "(timeout)"),
    ],
)
def test_a_function_of_no_use(refuse: Callable[..., str], tmp_path: Path, source: str, says: str) -> None:
    (tmp_path / "useless.py").write_text(source)
    assert says in refuse({"agents": student("python.callable", callable="useless.py:answer", timeout=0.3)}, starts=True)


def test_a_mended_agent_goes_on_in_the_same_directory(stage: Stage, refuse: Callable[..., str], tmp_path: Path) -> None:
    """What an unusable agent leaves behind stands in nobody's way: its failure is tried again, not remembered."""
    with server(500, b"") as (address, handler):
        refuse(http_agent(address), starts=True)
        handler.status, handler.body = 200, b'{"response": "4"}'
        stage.done("optimize", tmp_path / "run.yaml", "--run-dir", tmp_path / "run", "--quiet", cwd=tmp_path)
