"""Rollouts of an agent that needs processors: what a run finds is the same wherever they run, and when workers are lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gepa_atlas.build import build_experiment
from gepa_atlas.config import load_config
from gepa_atlas.errors import ConfigError

ROOT = Path(__file__).parent.parent
AGENT = """
import os, signal, sys
from pathlib import Path

def answer(question: str, guidance: str) -> str:
    mark = Path(os.environ["LOST_MARK"])
    if "7" in question and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    word = question.split()[-1]
    return word.upper() if "capital" in guidance else word

if __name__ == "__main__":
    import json
    task = json.load(sys.stdin)
    print(answer(task["question"], task["guidance"]))
"""
PROVIDERS = {
    "python.callable": "{provider: python.callable, params: {callable: 'code/agent.py:answer', guidance: field}}",
    "cli.command": "{provider: cli.command, params: {argv: ['{python}', agent.py], cwd: code, stdin: json, guidance: field, "
    "env: [LOST_MARK]}}",
}


def written(place: Path, provider: str) -> Path:
    (place / "code").mkdir(parents=True)
    (place / "code/agent.py").write_text(AGENT)
    (place / "data.jsonl").write_text("".join(f'{{"id": "{i}", "question": "Spell w{i}", "answer": "W{i}"}}\n' for i in range(60)))
    path = place / "run.yaml"
    path.write_text(
        f"agents: {{student: {PROVIDERS[provider]}}}\nseed_prompts: {{guidance: Spell it.}}\ndata: {{path: data.jsonl}}\n"
        "operators: [edit]\n"
        "operator_options: {edit: {builtin: false, from_data: false, fragments: [Use capital letters., Be brief., Be kind.]}}\n"
        "max_metric_calls: 90\n"
    )
    return path


def digest(config: Path, directory: Path, *sets: str, mark: Path) -> str:
    """The digest of a run in a process of its own, as a user starts it."""
    command = [sys.executable, "-c", "from gepa_atlas.start import main; main()"]
    options = [word for one in sets for word in ("--set", one)]
    env = {**os.environ, "LOST_MARK": str(mark)}
    done = subprocess.run(
        [*command, "optimize", str(config), "--run-dir", str(directory), "--quiet", *options], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    shown = subprocess.run([*command, "runs", "digest", str(directory)], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


@pytest.mark.parametrize(("provider", "backend"), [("python.callable", "loky"), ("cli.command", "loky"), ("python.callable", "dask")])
def test_a_run_finds_the_same_though_its_student_runs_elsewhere(tmp_path: Path, provider: str, backend: str) -> None:
    if backend == "dask":
        pytest.importorskip("distributed")
    (tmp_path / "exists").touch()
    config = written(tmp_path / "home", provider)
    plain = digest(config, tmp_path / "plain", mark=tmp_path / "exists")
    lost = provider == "python.callable" and backend == "loky"  # a worker is lost once on the way
    mark = tmp_path / "mark" if lost else tmp_path / "exists"
    assert digest(config, tmp_path / "moved", f"backend={{name: {backend}, jobs: 2}}", mark=mark) == plain
    assert mark.exists()


def test_a_model_stays_where_it_is() -> None:
    loaded = load_config(ROOT / "configs/examples/toyworld.yaml", ["backend=loky"])
    with pytest.raises(ConfigError, match=r"toyworld waits for a server and stays here; remove backend"):
        build_experiment(loaded)
