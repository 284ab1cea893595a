"""`gepa-atlas init`: for each provider a configuration that loads, in a terminal by questions, elsewhere by flags alone."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gepa_atlas.cli import run
from gepa_atlas.cli.init import _KINDS
from gepa_atlas.config import load_config
from gepa_atlas.connectors.registry import providers
from gepa_atlas.data import load_examples

ROOT = Path(__file__).parents[2]
BUILT = [name for name in _KINDS if name not in ("dspy.module", "langgraph", "huggingface")]  # which need a file or a model of yours


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    monkeypatch.setenv("OPENAI_API_KEY", "none-is-needed")
    yield
    os.environ.clear()
    os.environ.update(before)


def test_init_knows_every_provider() -> None:
    assert set(_KINDS) == set(providers()) - {"toyworld"}


@pytest.mark.parametrize("provider", BUILT)
def test_what_is_written_is_built_and_checked_without_a_call(provider: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--provider", provider]) == 0
    out = capfd.readouterr().out
    assert "atlas.yaml: written" in out and "examples.jsonl: written" in out and out.endswith("next: gepa-atlas check atlas.yaml\n")
    assert ("OPENAI_API_KEY" in out) == bool(_KINDS[provider].key)
    assert run(["check", "atlas.yaml", "--sample", "0"]) == 0, capfd.readouterr().err
    assert "red " not in capfd.readouterr().out


@pytest.mark.parametrize("provider", ["dspy.module", "langgraph", "huggingface"])
def test_what_needs_something_of_yours_loads(provider: str) -> None:
    assert run(["init", "--provider", provider]) == 0
    assert load_config(Path("atlas.yaml")).config.agents.student.provider == provider


@pytest.mark.parametrize("provider", ["python.callable", "cli.command"])
def test_the_sample_agent_can_be_made_better_at_once(provider: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--provider", provider, "--dir", "new/place"]) == 0
    assert run(["check", "new/place/atlas.yaml"]) == 0, capfd.readouterr().err
    out = capfd.readouterr().out
    assert "green   lesson" in out and "green   judges" in out


def test_flags_say_it_all(capfd: pytest.CaptureFixture[str]) -> None:
    Path("my.jsonl").write_text("".join(json.dumps({"question": f"q{n}", "answer": str(n)}) + "\n" for n in range(40)))
    flags = ["--provider", "http.api", "--agent", "http://127.0.0.1:1/a?b={c}", "--data", "my.jsonl", "--name", "mine.yaml"]
    assert run(["init", *flags]) == 0
    assert sorted(p.name for p in Path(".").iterdir()) == ["mine.yaml", "my.jsonl"]
    config = load_config(Path("mine.yaml")).config
    assert config.agents.student.params["endpoint"] == "http://127.0.0.1:1/a?b={c}"
    assert len(load_examples(config.data, Path(".")).examples) == 40
    assert run(["init", "--provider", "cli.command", "--agent", "my-agent --say 'two words'", "--dir", "cli"]) == 0
    assert load_config(Path("cli/atlas.yaml")).config.agents.student.params["argv"] == ["my-agent", "--say", "two words"]
    assert not Path("cli/agent.py").exists()


def test_files_of_yours_are_named_from_where_the_configuration_lies(capfd: pytest.CaptureFixture[str]) -> None:
    Path("my.jsonl").write_text("".join(json.dumps({"question": f"q{n}", "answer": str(n)}) + "\n" for n in range(40)))
    Path("agent.py").write_text("def answer(question, guidance):\n    return 'mine'\n")
    flags = ["init", "--data", "my.jsonl", "--dir", "my place"]
    assert run([*flags, "--provider", "python.callable", "--agent", "agent.py:answer"]) == 0
    assert capfd.readouterr().out.endswith("next: gepa-atlas check 'my place/atlas.yaml'\n")
    assert run(["check", "my place/atlas.yaml", "--sample", "1"]) == 0, capfd.readouterr().err
    assert "'mine'" in capfd.readouterr().out and not Path("my place/agent.py").exists()
    assert run([*flags, "--provider", "cli.command", "--agent", "{python} agent.py", "--name", "cli.yaml"]) == 0
    assert load_config(Path("my place/cli.yaml")).config.agents.student.params["argv"] == ["{python}", "../agent.py"]
    assert run(["init", "--provider", "python.callable", "--agent", "agent.py:answer"]) == 0  # here the file needs no other name
    assert "mine" in Path("agent.py").read_text()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--provider", "cli.command", "--agent", "say 'it"], "No closing quotation"),
        (["--provider", "mcp", "--agent", "  "], "holds no program"),
        (["--name", "examples.jsonl"], "the file of the sample"),
    ],
)
def test_what_cannot_be_written_is_one_line(flags: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["init", *flags]) == 2
    err = capfd.readouterr().err
    assert says in err and err.count("\n") == 1 and not any(Path(".").iterdir())


def test_nothing_is_replaced_unasked(capfd: pytest.CaptureFixture[str]) -> None:
    Path("examples.jsonl").write_text("mine")
    assert run(["init"]) == 2
    assert "examples.jsonl: this file exists" in capfd.readouterr().err and not Path("atlas.yaml").exists()
    assert run(["init", "--force"]) == 0
    assert run(["init", "--provider", "http.apy", "--force"]) == 2
    assert "did you mean 'http.api'?" in capfd.readouterr().err


def test_the_sample_has_three_splits_without_repeats() -> None:
    assert run(["init"]) == 0
    found = load_examples(load_config(Path("atlas.yaml")).config.data, Path("."))
    assert found.sizes() == "48 train, 21 val, 21 test" and found.notes == ()


def test_in_a_terminal_it_asks() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from gepa_atlas.start import main; main()", "init"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        os.write(ours, b"http.api\nhttp://127.0.0.1:7/x\n\n")
        assert process.wait(60) == 0
        said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "What is your agent?" in said and "Address of your agent" in said and "next: gepa-atlas check atlas.yaml" in said
    assert load_config(Path("atlas.yaml")).config.agents.student.params["endpoint"] == "http://127.0.0.1:7/x"
