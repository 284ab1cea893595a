"""The scripts under names that users of ATLAS know: each is a command line of `gepa-atlas`, option by option."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "scripts"


def offline() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_offline_pipeline", SCRIPTS / "run_offline_pipeline.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_flag_of_atlas_is_passed_on() -> None:
    given = (
        "--export-path t.jsonl --config-name cpu_smoke --data-config runtime_traces --trainer-config sft --model-config smollm2 "
        "--eval-ratio 0.2 --max-samples 50 --output-dir out --wandb-project p --wandb-run-name n "
        "--override ++seed=3 --override grpo.beta=0.1 --dry-run"
    )
    train = ROOT / "configs" / "train"
    assert offline().arguments(given.split()) == [
        "grpo", "run", "--config", f"{train}/cpu_smoke.yaml", "--export-path", "t.jsonl",
        "--over", f"{train}/data/runtime_traces.yaml", "--over", f"{train}/trainer/sft.yaml", "--over", f"{train}/model/smollm2.yaml",
        "--eval-ratio", "0.2", "--max-samples", "50", "--output-dir", "out", "--wandb-project", "p", "--wandb-run-name", "n",
        "--set", "seed=3", "--set", "grpo.beta=0.1", "--dry-run",
    ]  # fmt: skip


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    mine = str(tmp_path / "mine.yaml")
    assert offline().arguments(["--export-path", "t", "--config-name", mine])[3] == mine
    assert offline().arguments(["--export-path", "t", "--config-name", "nowhere"])[3] == "nowhere"


def script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CUDA_VISIBLE_DEVICES")}
    return subprocess.run([SCRIPTS / name, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("name", "wanted"), [("launch.sh", "N CONFIG"), ("launch_with_server.sh", "S T CONFIG")])
def test_without_arguments_they_say_how(name: str, wanted: str, tmp_path: Path) -> None:
    done = script(name, "1", cwd=tmp_path)
    assert done.returncode == 2 and wanted in done.stderr


@pytest.mark.skipif(not (ROOT / ".venv" / "bin" / "gepa-atlas").exists(), reason="the clone has no .venv; scripts/test.sh makes it")
@pytest.mark.parametrize(
    ("name", "numbers", "says"),
    [("launch.sh", ["0"], "'--processes'"), ("launch_with_server.sh", ["-1", "2"], "'--vllm-gpus'")],
)
def test_their_numbers_are_options_of_launch(name: str, numbers: list[str], says: str, tmp_path: Path) -> None:
    done = script(name, *numbers, str(ROOT / "configs/train/server.yaml"), "--dry-run", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and says in done.stderr, done.stderr
