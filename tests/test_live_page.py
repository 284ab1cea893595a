"""Commands and configuration of docs/live.md are run and read here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from gepa_atlas.cli import run as cli
from gepa_atlas.observe.config import ObserveConfig
from gepa_atlas.observe.facts import Tally
from gepa_atlas.settings import load
from gepa_atlas.types import Usage
from tests.ui.running import ui

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "live.md").read_text("utf-8")


def test_every_command_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] == "optimize":
            assert cli(words) == 0
    assert '"event": "finish"' in capsys.readouterr().out
    (tmp_path / "experiments").mkdir()
    options = [shlex.split(command)[2:] for command in commands if shlex.split(command)[1] == "ui"]
    assert options == [[], ["--runs", "experiments", "--port", "8080"]]
    with ui(tmp_path / "experiments") as server:
        assert server.token


def test_the_example_is_a_configuration_and_names_every_sink() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    config = load(ObserveConfig, yaml.safe_load(block)["observe"], "observe")
    assert all(value is not None for _, value in config)


def test_the_figures_of_the_page_are_those_there_are() -> None:
    tally = Tally([0.0], [1.0], 1, seconds=1.0, answers=1)
    for name in tally.figures({"student": Usage(1, 1, 0.1, 1.0, 1)}):
        assert f"`{name.removesuffix('student')}`" in PAGE, name
