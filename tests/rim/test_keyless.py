"""Without keys: what is missing is said at once, and a program judges where that is possible."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gepa_atlas.cli import run
from gepa_atlas.rim.keyless import default_rewards, lacking_key, lacking_keys
from gepa_atlas.rim.reward import read_rim

SHIPPED = Path(__file__).parents[2] / "configs" / "rim_config.yaml"
KEYS = ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = dict(os.environ)
    for name in (*KEYS, "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def test_what_is_missing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacking_keys(read_rim(SHIPPED)) == list(KEYS)
    monkeypatch.setenv("GOOGLE_API_KEY", "x")
    assert lacking_key("gemini/gemini-2.5-flash") is None
    assert lacking_key({"provider": "litellm", "params": {"model": "openai/m"}}) == "OPENAI_API_KEY"
    for known in ("local", "bedrock/m", None, {"provider": "litellm", "params": {"model": "openai/m", "api_base": "http://127.0.0.1:1"}}):
        assert lacking_key(known) is None


def test_a_program_stands_in(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, note = default_rewards(SHIPPED, read_rim)
    assert [j.type for j in config.judges] == ["contains"] and "ANTHROPIC_API_KEY" in note
    assert "there is no" in default_rewards(bare / "none.yaml", read_rim)[1]
    for name in KEYS:
        monkeypatch.setenv(name, "x")
    assert default_rewards(SHIPPED, read_rim) == (read_rim(SHIPPED), "")


def test_a_missing_key_is_one_line_at_once(bare: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["rim", "score", "--config", str(SHIPPED), "--prompt", "q", "--response", "a"]) == 2
    assert "reads its key from" in capfd.readouterr().err
    assert run(["evaluate", "--question", "2 + 2?"]) == 2
    assert "give it with --answer" in capfd.readouterr().err


def test_env_files_are_read(bare: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (bare / ".env").write_text("what is this\n")
    assert run(["rim", "bench"]) == 2
    assert ".env:1: not a NAME=value line" in capfd.readouterr().err
    assert run(["evaluate", "--question", "2 + 2?", "--answer", "4"]) == 2
    assert ".env:1: not a NAME=value line" in capfd.readouterr().err


PROGRAMS = str(SHIPPED.parent / "rim_programs.yaml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rim", "score", "--config", PROGRAMS, "--dataset", "empty.jsonl"], "empty.jsonl: the file has no rows"),
        (["rim", "audit", "--config", PROGRAMS, "--dataset", "empty.jsonl"], "empty.jsonl: the file has no rows"),
        (["rim", "score", "--config", PROGRAMS, "--dataset", "half.jsonl"], "half.jsonl:2: not a JSON object"),
        (["rim", "score", "--config", PROGRAMS, "--prompt", "q", "--response", "a", "--json", "no/o.json"], "its folder does not exist"),
        (["rim", "calibrate", "--labels", "half.jsonl", "--config", PROGRAMS, "--out", "."], "cannot be written (a directory)"),
        (["rim", "calibrate", "--labels", "half.jsonl", "--config", PROGRAMS, "--draws", "0", "--out", "p.json"], "--draws"),
        (["evaluate", "--question", "q", "--answer", "a", "--reward-config", PROGRAMS, "--json", "no/o.json"], "its folder does not exist"),
        (["evaluate", "--dataset", "empty.jsonl", "--reward-config", PROGRAMS], "empty.jsonl: the file has no questions"),
        (
            ["evaluate", "--question", "q", "--answer", "a", "--reward-config", PROGRAMS, "--teacher-model", "openai/m"],
            "--teacher-model: openai/m reads its key from OPENAI_API_KEY, which is not set",
        ),
        (
            ["evaluate", "--question", "q", "--answer", "a", "--reward-config", PROGRAMS, "--student-model", "nope"],
            "unknown provider 'nope'",
        ),
    ],
)
def test_bad_input_is_one_line(bare: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    (bare / "empty.jsonl").write_text("\n")
    (bare / "half.jsonl").write_text('{"prompt": "q", "response": "a"}\n{"prompt": ')
    assert run(arguments) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and says in err
