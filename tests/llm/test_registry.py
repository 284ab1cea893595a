"""Names of models, and what is said about a name that is none."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.llm import registry
from gepa_atlas.llm.registry import ModelSpec, build_model, read_spec


def test_short_forms() -> None:
    assert read_spec("local") == ModelSpec(provider="local")
    assert read_spec("openai/gpt-5-mini") == ModelSpec(provider="litellm", params={"model": "openai/gpt-5-mini"})
    assert read_spec({"provider": "local", "params": {"context": 512}}).params == {"context": 512}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("locl", "teacher: unknown provider 'locl'; did you mean 'local'"),
        ("zzz", "known providers: .*local.*vendor/model"),
        ({"provider": "local", "params": {"contxt": 1}}, "teacher.params.contxt: unknown key; did you mean 'context'"),
        ({"provider": "local", "params": {"context": 1}}, "teacher.params.context"),
        ({"provider": "local", "parms": {}}, "did you mean 'params'"),
    ],
)
def test_mistakes_are_one_clear_line(spec: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build_model(spec, "teacher")
    assert "\n" not in str(caught.value)


def test_a_package_adds_a_provider_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "third-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gepa_atlas.models]\nthird = third_party:build\nbroken = no_such_module:build\n")
    (tmp_path / "third_party.py").write_text(
        "from gepa_atlas.testing.scripted import ScriptedModel\ndef build(params, where):\n    return ScriptedModel([where, *params])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert "third" in registry.providers()
    assert type(build_model({"provider": "third", "params": {"a": 1}})).__name__ == "ScriptedModel"
    with pytest.raises(ConfigError, match="cannot be imported"):
        build_model("broken")


def test_the_registry_imports_nothing_heavy() -> None:
    code = (
        "import sys, gepa_atlas.llm.registry, gepa_atlas.wire\n"
        "print([m for m in ('litellm', 'openai', 'xllamacpp', 'httpx', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_params_are_a_mapping() -> None:
    params: Mapping[str, Any] = {"context": 512}
    assert "context-512" in build_model(ModelSpec(provider="local", params=dict(params))).identity
