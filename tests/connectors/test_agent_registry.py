"""Providers by name: lazily, with a hint when the name is wrong, and open to other packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent, providers
from gepa_atlas.errors import ConfigError
from tests.connectors.faults import no_model


@pytest.mark.parametrize(("name", "says"), [("http.apo", "did you mean 'http.api'"), ("zzz", "known providers: chat, cli.command")])
def test_an_unknown_provider_has_a_hint(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_agent(AgentSpec(provider=name), build_model=no_model)


def test_a_provider_imports_nothing_of_the_others() -> None:
    code = (
        "import sys; from gepa_atlas.connectors import AgentSpec, build_agent\n"
        "build_agent(AgentSpec(provider='cli.command', params={'argv': ['cat']}), build_model=None)\n"
        "build_agent(AgentSpec(provider='http.api', params={'endpoint': 'http://127.0.0.1:1'}), build_model=None)\n"
        "heavy = {'httpx', 'litellm', 'openai', 'xllamacpp', 'torch', 'dspy', 'gepa_atlas.connectors.chat', 'gepa_atlas.testing'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_another_package_adds_a_provider(tmp_path: Path) -> None:
    (tmp_path / "their_agents.py").write_text(
        "from gepa_atlas.testing.scripted import ScriptedAgent\n"
        "def build(params, surroundings): return ScriptedAgent([params['word']], identity='theirs')\n"
    )
    info = tmp_path / "their_agents-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-agents\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gepa_atlas.agents]\ntheirs = their_agents:build\nbroken = not_there:build\n")
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from gepa_atlas.connectors import AgentSpec, build_agent, providers\nfrom gepa_atlas.errors import ConfigError\n"
        "print(build_agent(AgentSpec(provider='theirs', params={'word': 'hi'}), build_model=None).identity, 'theirs' in providers())\n"
        "try: build_agent(AgentSpec(provider='broken'), build_model=None)\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "theirs True"
    assert "cannot be imported: No module named 'not_there'" in done.stdout


def test_the_toy_world_is_a_provider() -> None:
    built = build_agent(AgentSpec(provider="toyworld"), build_model=no_model)
    assert built.identity
    assert {"chat", "cli.command", "http.api", "python.callable", "toyworld"} <= set(providers())


def test_paths_start_at_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("def answer(prompt): return prompt")
    spec = AgentSpec(provider="python.callable", params={"callable": "bot.py:answer", "base_dir": str(tmp_path)})
    assert build_agent(spec, build_model=no_model).identity
