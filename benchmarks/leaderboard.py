"""`python -m benchmarks.leaderboard`: LEADERBOARD.md from the result files in benchmarks/results, and from nothing else."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, Row

FOLDER = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "LEADERBOARD.md"
COLUMNS: dict[str, dict[str, str]] = {
    "simland": {
        "family": "family", "noise": "noise", "optimizer": "optimizer", "worlds": "worlds", "true_gain": "gain", "true_gain_low": "low",
        "true_gain_high": "high", "ratio_to_gepa": "x gepa", "ratio_low": "low", "ratio_high": "high", "hurt_rate": "hurt",
        "rollouts_to_gepa_gain": "calls to gepa's gain", "prompt_tokens": "tokens",
    },
    "smol": {
        "task": "task", "optimizer": "optimizer", "seeds": "seeds", "seed_score": "seed", "test_score": "test", "gain": "gain",
        "gain_low": "low", "gain_high": "high", "over_gepa": "over gepa", "over_gepa_low": "low", "over_gepa_high": "high",
        "over_miprov2": "over miprov2", "over_miprov2_low": "low", "over_miprov2_high": "high",
    },
    "scheduler": {
        "system": "system", "concurrency": "W", "stragglers": "stragglers", "reflection": "reflection", "wall": "wall s",
        "ideal": "ideal s", "ratio": "wall / ideal",
    },
    "overhead": {
        "system": "system", "candidates": "candidates", "valset": "valset", "reached": "reached", "ms_per_proposal": "ms / proposal",
        "growth_exponent": "growth", "peak_mb": "peak MB", "bytes_written_ratio": "bytes / state",
    },
    "rim.bank": {
        "prompt": "prompt", "cap": "cap", "policy": "policy", "halves": "halves", "n": "questions", "calls_per_response": "calls",
        "strict": "strict", "strict_worst": "worst half", "tie_credit": "ties split", "escalation_auc": "AUC", "ece": "ECE",
    },
    "rim.pairs": {
        "data": "data", "policy": "policy", "n": "pairs", "strict": "strict", "tie_credit": "ties split", "abstained": "abstained",
        "when_decided": "right when decided", "consistency": "consistency",
    },
    "rim.speed": {"what": "what", "n": "n", "figure": "figure", "unit": "unit", "asked": "asked"},
    "rim.faults": {"faults": "faults", "rewards": "rewards", "scored": "scored", "none": "none", "equal_to_no_faults": "as without faults"},
    "scale": {"what": "what", "predicted": "predicted", "measured": "measured", "ratio": "ratio", "unit": "unit"},
    "sweeps": {
        "what": "what", "world": "world", "key": "key", "figure": "figure", "unit": "unit",
        "share_of_matrix": "share of the matrix's rollouts", "seconds": "seconds",
    },
    "sweep": {
        "sweep": "sweep", "settings": "settings", "objective": "objective", "cells": "cells", "mean": "mean", "low": "low", "high": "high",
        "behind": "behind the best", "behind_low": "low", "behind_high": "high",
    },
    "simland.facts": {"fact": "fact", "source": "source", "difference": "difference", "low": "low", "high": "high", "verdict": "verdict"},
}  # fmt: skip
TITLES = {
    "simland": "simland: simulated worlds, equal student calls",
    "smol": "smol: search on SmolLM2-135M",
    "scheduler": "scheduler: wall clock over ideal",
    "overhead": "overhead: what the engine costs",
    "rim.bank": "rim: best of four on recorded judgments, fitted on one half and scored on the other",
    "rim.pairs": "rim: recorded pairwise judgments in both orders",
    "rim.speed": "rim: time",
    "rim.faults": "rim: 300 rewards under injected faults",
    "scale": "scale: a run of 24,000 rollouts, predicted from runs of at most 2,000",
    "sweeps": "sweeps: planted settings, kills, and one table everywhere",
    "sweep": "sweep: settings of one sweep, each mean with its 95 % interval",
    "simland.facts": "Published facts that simland reproduces or does not",
}


def shown(kind: str, row: Row) -> bool:
    """Whether a row is on the page: of simland the families and the summaries, not each noise level of each family."""
    return kind != "simland" or row["noise"] == "mixed" or row["family"] == "deterministic"


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")


def section(document: dict[str, Any], name: str) -> str:
    """One result file as a heading, a line on how it was made, and a table."""
    about, rows = document["meta"], document["rows"]
    kind = about["benchmark"]
    columns = {k: v for k, v in COLUMNS[kind].items() if any(k in r for r in rows)}
    kept = [r for r in rows if shown(kind, r)] or rows
    made = [f"`{name}`", about["made"][:10]]
    if "commit" in about:
        made.append(f"commit {about['commit'][:10]}" + (" with changes" if about.get("changed_files") else ""))
    made += [
        f"{k} {about[k]}"
        for k in ("key", "budget", "worlds_per_family", "model", "engine", "draws_done", "draws")
        if about.get(k) is not None
    ]
    peers = ", ".join(f"{k} {v}" for k, v in about["versions"].items() if v and k in ("gepa", "dspy"))
    made += [peers] if peers else []
    made += [f"{about['machine']['cpus']} cores"] if "machine" in about else []
    lines = [f"### {TITLES[kind]}", "", f"{'; '.join(made)}.", ""]
    lines += ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(r.get(k)) for k in columns) + " |" for r in kept]
    return "\n".join(lines)


def page(folder: Path) -> str:
    documents = [(p.name, json.loads(p.read_text(encoding="utf-8"))) for p in sorted(folder.glob("*.json"))]
    order = list(COLUMNS)
    documents = [d for d in documents if d[1].get("meta", {}).get("benchmark") in order]
    documents.sort(key=lambda d: (order.index(d[1]["meta"]["benchmark"]), d[0]))
    head = (
        "# Leaderboard\n\nRegenerated by `python -m benchmarks.leaderboard` from the files in `benchmarks/results/`; do not edit it. "
        "Gains of simland are normalised true gains (1 is the best prompt that exists, 0 the seed); those of the flat family are plain "
        "differences in accuracy. gepa is its better configuration in every ratio. What did not work is in `LOG.md`.\n"
    )
    return "\n\n".join([head.rstrip(), *(section(d, n) for n, d in documents)]) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args(argv)
    args.out.write_text(page(args.results), encoding="utf-8")
    print(f"{args.out.name}: {len(list(args.results.glob('*.json')))} result files")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
