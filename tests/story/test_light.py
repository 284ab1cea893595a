"""The library and the command line come up without the heavy libraries. The figures are printed; only what is loaded is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.story.stage import ROOT

HEAVY = {"litellm", "torch", "dspy", "optuna", "joblib", "openai", "xllamacpp", "jsonschema", "httpx"}
HELP = "import sys; sys.argv = ['gepa-atlas', '--help']; from gepa_atlas.cli import main; main()"


@pytest.mark.parametrize(("what", "program"), [("import gepa_atlas", "import gepa_atlas"), ("gepa-atlas --help", HELP)])
def test_what_starts_is_light(tmp_path: Path, what: str, program: str) -> None:
    command = [sys.executable, "-X", "importtime", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=True)
    rows = [
        line.removeprefix("import time:").split("|")
        for line in done.stderr.splitlines()
        if line.startswith("import time:") and "[us]" not in line
    ]
    loaded = {name.strip().partition(".")[0] for _, _, name in rows}
    assert "gepa_atlas" in loaded
    assert loaded & HEAVY == set()
    print(f"{what}: {sum(int(own) for own, _, _ in rows) / 1e6:.3f} s in imports, {len(rows)} modules")
