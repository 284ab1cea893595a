"""docs/providers.md: every configuration on it is checked with one real lesson, its example of an own provider sits its exam."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.cli import run as gepa_atlas
from gepa_atlas.connectors.registry import providers
from gepa_atlas.llm.local import LocalModel
from gepa_atlas.llm.serve import serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "providers.md").read_text("utf-8")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
    # litellm may leave a connection to the garbage collector, which finds it during whatever test comes next
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


SHOWN = {yaml.safe_load(block)["agents"]["target"]["provider"]: block for block in blocks("yaml")}
HEAVY = {"huggingface": ("torch", "transformers")}


def test_every_provider_is_on_the_page() -> None:
    assert set(SHOWN) | {"chat", "toyworld"} == set(providers())
    assert all(f"| `{name}` |" in PAGE for name in providers() if name != "toyworld")


@contextmanager
def started(*command: str) -> Iterator[str]:
    """The address that a server writes when it listens."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, *command, "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def servers(local_model: LocalModel) -> Iterator[dict[str, str]]:
    """What the page says to start first."""
    service, assistants = started("agents/http_service.py"), started("-m", "gepa_atlas.testing.assistants")
    with serving(local_model) as model, service as measure, assistants as threads:
        yield {"OPENAI_BASE_URL": model, "MODEL_BASE_URL": model, "MEASURE_URL": measure, "ASSISTANTS_URL": threads}


@pytest.mark.local
@pytest.mark.parametrize("provider", sorted(SHOWN))
def test_each_configuration_gives_a_judged_lesson(
    provider: str, servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if any(importlib.util.find_spec(name) is None for name in HEAVY.get(provider, ())):
        pytest.skip(f"pip install 'gepa-atlas[{provider}]'")
    for name, value in {**servers, "OPENAI_API_KEY": "none", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    if provider == "huggingface":
        from tests.llm.tiny_model import make

        monkeypatch.setenv("MODEL_DIR", str(make(tmp_path / "model")))
    units = provider not in ("cli.command", "python.callable", "dspy.module", "mcp", "openai.sdk")
    data = ROOT / "configs" / ("wrappers/data/units.jsonl" if units else "examples/data/orders.jsonl")
    (tmp_path / "agents").symlink_to(ROOT / "agents")
    config: dict[str, Any] = {**yaml.safe_load(SHOWN[provider]), "data": {"path": str(data)}, "rim": {"judges": ["exact"]}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config | {"max_metric_calls": 60}))
    monkeypatch.chdir(tmp_path)
    gepa_atlas(["check", "run.yaml", "--sample", "1", "--json"])
    told = json.loads(capsys.readouterr().out)
    lesson = told["lesson"]
    assert lesson["baseline"]["error"] is None and lesson["second"]["error"] is None, told["rows"]
    assert lesson["before"]["value"] is not None and lesson["after"]["value"] is not None
    assert len(told["requests"]) == 2 and "given" not in told["requests"][0], "check shows what is sent"
    assert not [row for row in told["rows"] if row["state"] == "red" and row["name"] in ("lesson", "configuration", "guidance")]


def test_the_own_provider_sits_its_exam(tmp_path: Path) -> None:
    (code,) = blocks("python")
    (tmp_path / "test_mine.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_mine.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout[-2000:]
