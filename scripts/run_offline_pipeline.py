#!/usr/bin/env python
"""ATLAS's offline pipeline by its own flags, for those who have them in their scripts: it is `gepa-atlas grpo run`.

python scripts/run_offline_pipeline.py --export-path traces/runtime.jsonl --output-dir results/teacher
python scripts/run_offline_pipeline.py --export-path runs/my/traces.jsonl --trainer-config sft --override sft.epochs=2 --dry-run
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs" / "train"


def arguments(given: list[str] | None = None) -> list[str]:
    """The command line of `gepa-atlas` that these flags stand for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export-path", required=True, help="traces: an ATLAS session export, or traces.jsonl of a run")
    parser.add_argument("--config-name", default="atlas_teacher", help="a file of configs/train, or a path")
    parser.add_argument("--data-config", help="a file of configs/train/data, or a path: laid over the configuration")
    parser.add_argument("--trainer-config", help="the same, of configs/train/trainer: grpo, sft")
    parser.add_argument("--model-config", help="the same, of configs/train/model: qwen3_8b, smollm2")
    parser.add_argument("--eval-ratio", type=float)
    parser.add_argument("--max-samples", type=int)
    parser.add_argument("--output-dir")
    parser.add_argument("--wandb-project")
    parser.add_argument("--wandb-run-name")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="repeatable")
    parser.add_argument("--dry-run", action="store_true")
    said = parser.parse_args(given)
    line = ["grpo", "run", "--config", str(place(said.config_name, CONFIGS)), "--export-path", said.export_path]
    for group in ("data", "trainer", "model"):
        name = vars(said)[f"{group}_config"]
        line += ["--over", str(place(name, CONFIGS / group))] if name else []
    for flag in ("eval_ratio", "max_samples", "output_dir", "wandb_project", "wandb_run_name"):
        value = vars(said)[flag]
        line += [f"--{flag.replace('_', '-')}", str(value)] if value is not None else []
    for override in said.override:
        line += ["--set", override.lstrip("+")]  # Hydra's ++key=value
    return [*line, "--dry-run"] if said.dry_run else line


def place(name: str, folder: Path) -> Path:
    """A configuration by name or path; gepa-atlas says it when there is none."""
    path = Path(name)
    named = folder / (name if path.suffix else f"{name}.yaml")
    return named if not path.exists() and named.exists() else path


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from gepa_atlas.start import main

    sys.argv = ["gepa-atlas", *arguments()]
    sys.exit(main())
