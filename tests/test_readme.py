"""Every command and every configuration excerpt that the README shows is run or read here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gepa_atlas.cli import run
from gepa_atlas.config import load_config
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.settings import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that looks like the clone, where the README's commands leave their runs."""
    directory = tmp_path_factory.mktemp("clone")
    (directory / "configs").symlink_to(ROOT / "configs")
    yield directory


def test_it_opens_with_the_two_commands() -> None:
    assert COMMANDS[:2] == ["./scripts/openai_agent_atlas.sh", "./scripts/test.sh"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("gepa-atlas")])
def test_commands_run_in_their_order(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert run(shlex.split(command)[1:]) == 0


def test_every_command_is_one_of_ours() -> None:
    assert {c.split()[0] for c in COMMANDS} == {"./scripts/openai_agent_atlas.sh", "./scripts/test.sh", "gepa-atlas"}


def test_the_configuration_excerpts_are_valid(tmp_path: Path) -> None:
    agent, judges = blocks("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(agent)
    config = load_config(path, env={"MY_AGENT_TOKEN": "t"}).config
    assert config.agents.student.provider == "http.api"
    assert len(load(RimConfig, yaml.safe_load(judges)["rim"], "rim").judges) == 6


def test_links_and_paths_exist() -> None:
    named = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"`((?:configs|agents|docs|scripts)/[\w./-]*)`", README)
    assert named and [n for n in named if not (ROOT / n).exists()] == []


@pytest.mark.skipif(not (ROOT / ".venv" / "installed").exists(), reason="the clone has no .venv; scripts/test.sh makes it")
def test_the_script_runs_a_configuration_from_anywhere(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "openai_agent_atlas.sh"
    arguments = ["configs/examples/toyworld.yaml", "--max-metric-calls", "40", "--quiet"]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([script, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "toyworld" / "optimized_prompts.json").exists()


def test_ci_ends_in_the_test_script() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-1] == 'exec bash "$(dirname "${BASH_SOURCE[0]}")/../scripts/test.sh"'
    assert [line for line in lines if "test.sh" in line or "pytest" in line] == lines[-1:]


# Those of sweeps and of training have tests of their own.
CONFIGURATIONS = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if not {"train", "sweeps"} & set(p.parts))


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_configuration_in_the_repository_loads(path: Path) -> None:
    if path.name.startswith("rim_"):
        assert load(RimConfig, yaml.safe_load(path.read_text("utf-8"))["rim"], "rim").judges
    else:
        assert load_config(path, env={}).config.max_metric_calls >= 1


def test_the_documentation_names_every_key() -> None:
    from gepa_atlas.config import AtlasConfig
    from gepa_atlas.data import Columns, DataConfig

    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    named = set(re.findall(r"[\w.]+", " ".join(re.findall(r"`([^`]+)`", page))))
    keys = set(AtlasConfig.model_fields) - {"agents", "budget", "stop"} | set(DataConfig.model_fields) - {"columns"}
    keys |= {f"columns.{name}" for name in Columns.model_fields}
    assert keys - named == set()
