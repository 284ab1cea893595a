"""Odd things that users and their code hand over, each told in one line with its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gepa_atlas.datafile import read_rows
from gepa_atlas.dotenv import load_env_files
from gepa_atlas.errors import ConfigError, DataError, said
from gepa_atlas.llm.openai_compatible import OpenAIParams
from gepa_atlas.ports import Case, ChatModel
from gepa_atlas.rim import RimConfig, build_panel
from gepa_atlas.settings import load
from gepa_atlas.types import Example


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_without_words() -> None:
    assert said(Mute()) == "Mute: (no message: its __str__ raises)"
    assert said(ValueError("x")) == "ValueError: x"


def test_a_judge_that_raises_one_is_no_score(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError('no words')\n\n"
        "def f(output, example):\n    raise Mute()\n"
    )

    def no_model(spec: object) -> ChatModel:
        raise AssertionError(spec)

    panel = build_panel(
        load(RimConfig, {"judges": [{"type": "python", "function": "judge.py:f"}]}, "rim"), model=no_model, base_dir=tmp_path
    )
    reward = asyncio.run(panel.score(Case(Example("e", "q"), "x")))
    assert reward.missing is not None and (reward.missing.kind, "Mute" in reward.missing.reason) == ("judge_crashed", True)


@pytest.mark.parametrize("line", ["just words", "A B=1", "=1"])
def test_a_bad_line_of_an_env_file_is_named_by_file_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"# keys\nGEPA_ATLAS_TEST_A=1\n{line}\n")
    with pytest.raises(ConfigError, match=r"\.env:3: not a NAME=value line"):
        load_env_files(tmp_path / "c.yaml")


def test_a_good_env_file_is_taken_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    for name in ("GEPA_ATLAS_TEST_A", "GEPA_ATLAS_TEST_B"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text("\ufeffexport GEPA_ATLAS_TEST_A='a ${HOME} b'\n\nGEPA_ATLAS_TEST_B=x=y # why\n", encoding="utf-8")
    load_env_files(tmp_path / "c.yaml")
    assert (os.environ["GEPA_ATLAS_TEST_A"], os.environ["GEPA_ATLAS_TEST_B"]) == ("a ${HOME} b", "x=y")
    monkeypatch.delenv("GEPA_ATLAS_TEST_A")
    monkeypatch.delenv("GEPA_ATLAS_TEST_B")


def test_spaces_around_the_names_of_columns(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("question , answer\nhow?,so\n")
    assert read_rows(tmp_path / "d.csv")[0].value == {"question": "how?", "answer": "so"}
    (tmp_path / "e.csv").write_text("answer, answer\n1,2\n")
    with pytest.raises(DataError, match="the column 'answer' is there twice"):
        read_rows(tmp_path / "e.csv")


def test_true_is_no_number() -> None:
    with pytest.raises(ConfigError, match=r"rim\.concurrency: this takes a number, not true or false"):
        load(RimConfig, {"judges": ["exact"], "concurrency": True}, "rim")
    with pytest.raises(ConfigError, match="takes a number"):
        load(RimConfig, {"judges": [{"type": "number", "abs": True}]}, "rim")


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        load(OpenAIParams, {"model": "m", "base_url": "http://bob:pw1@127.0.0.1/v1"}, "x")
    assert "pw1" not in str(refused.value) and "[redacted]@127.0.0.1" in str(refused.value)
