"""The configuration for one GPU, for real, where there is one."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CUT = ("grpo.max_steps=4", "grpo.eval_steps=2", "grpo.save_steps=2", "eval.max_tasks=20", "eval.samples=1", "handoff.explore_share=1.0")


@pytest.mark.gpu
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no NVIDIA GPU here")
def test_one_gpu_from_lessons_to_a_decision(tmp_path: Path) -> None:
    """A few steps of the packaged model; with vllm beside the trainer where vllm is installed."""
    vllm = "colocate" if importlib.util.find_spec("vllm") else "off"
    sets = [w for key in (*CUT, "optimize=../examples/reckoner.yaml", f"vllm.mode={vllm}") for w in ("--set", key)]
    code = "import sys; from gepa_atlas.start import main; sys.exit(main())"
    argv = ["grpo", "run", "--config", str(ROOT / "configs/train/one_gpu.yaml"), "--output-dir", "out", *sets]
    done = subprocess.run([sys.executable, "-c", code, *argv], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    report = json.loads((tmp_path / "out" / "grpo_report.json").read_text())
    assert report["kl_step1"] < 1e-3 and report["verdict"] in ("pass", "fail", "inconclusive")
