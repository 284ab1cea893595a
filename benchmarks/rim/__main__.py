"""`python -m benchmarks.rim bank|pairs|speed|faults`: what the reward system gets right, and what it costs.

bank --bank FILE      best of several on recorded judgments: fitted on one half, scored on the other, over several cuts
pairs --pairs FILE    pairwise judgments in both orders, fitted on one half, scored on the other
speed                 throughput of the batch call over the ideal; milliseconds a program judge adds; replies read a second
faults                a panel under injected faults against the same panel without, and in a full outage
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.rim.speed import batches, faults, programs, replies
from gepa_atlas.evolve.rng import rng
from gepa_atlas.rim.bank import Bank, load_bank
from gepa_atlas.rim.bench import bench
from gepa_atlas.rim.calibrate import calibrate_bank
from gepa_atlas.rim.pairs import Pairs, bench_pairs, calibrate_pairs, load_pairs

CAPS = (2.0, 4.0, None)
SMALLEST = 25  # pairs of a group that is told by itself
FIGURES = ("calls_per_response", "strict", "tie_credit", "escalation_auc", "ece")


def part(bank: Bank, rows: np.ndarray) -> Bank:
    """These rows of a bank, as a bank."""
    digests = tuple(bank.row_digests[i] for i in rows)
    scores = {prompt: table[rows] for prompt, table in bank.scores.items()}
    return replace(bank, keys=tuple(bank.keys[i] for i in rows), scores=scores, row_digests=digests, fingerprint="part")


def bank_rows(bank: Bank, cuts: int) -> list[results.Row]:
    """Every figure is the mean over 2 x cuts held-out halves; `worst` is the lowest strict accuracy, the highest ECE, the lowest AUC."""
    seen: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cut in range(cuts):
        order = rng(cut, len(bank), "halves").permutation(len(bank))
        halves = order[: len(bank) // 2], order[len(bank) // 2 :]
        for fitted, held_out in (halves, halves[::-1]):
            profile = calibrate_bank(part(bank, fitted), prompts=[p for p in ("base", "criteria") if p in bank.judges])
            for cap in CAPS:
                for row in bench(part(bank, held_out), profile, most_calls=cap)["rows"]:
                    seen.setdefault((row["prompt"], "any" if cap is None else f"{cap:g}", row["policy"]), []).append(row)
    rows = []
    for (prompt, cap, policy), found in sorted(seen.items()):
        if policy == "atlas" and cap != "any":
            continue  # its rule knows no cap
        row: results.Row = {"prompt": prompt, "cap": "its own" if policy == "atlas" else cap, "policy": policy, "halves": len(found)}
        row["n"] = found[0]["n"]
        for name in FIGURES:
            known = [r[name] for r in found if r[name] is not None]
            row[name] = round(float(np.mean(known)), 4) if known else None
        row["most_calls"] = max(r["calls_per_response"] for r in found)
        row["strict_worst"] = round(min(r["strict"] for r in found), 4)
        row["ece_worst"] = max((r["ece"] for r in found if r["ece"] is not None), default=None)
        row["auc_worst"] = min((r["escalation_auc"] for r in found if r["escalation_auc"] is not None), default=None)
        rows.append(row)
    return rows


def pair_part(pairs: Pairs, rows: np.ndarray) -> Pairs:
    return replace(
        pairs,
        keys=tuple(pairs.keys[i] for i in rows),
        groups=tuple(pairs.groups[i] for i in rows),
        votes=pairs.votes[rows],
        first=pairs.first[rows],
        digests=tuple(pairs.digests[i] for i in rows),
    )


def pair_rows(pairs: Pairs, name: str, cuts: int) -> list[results.Row]:
    """The panel unfitted on everything; fitted on one half and scored on the other; and the best and worst judge beside it."""
    rows: list[results.Row] = []

    def add(policy: str, found: list[dict[str, Any]]) -> None:
        said = [r["accuracy_when_decided"] for r in found if r["accuracy_when_decided"] is not None]
        rows.append(
            {
                "data": name, "policy": policy, "halves": len(found), "n": found[0]["n"],
                **{k: round(float(np.mean([r[k] for r in found])), 4) for k in ("strict", "tie_credit", "abstained")},
                "when_decided": round(float(np.mean(said)), 4) if said else None,
                "tie_credit_worst": round(min(r["tie_credit"] for r in found), 4),
                "consistency": found[0].get("consistency"),
            }
        )  # fmt: skip

    plain = bench_pairs(pairs)["rows"]
    groups = [r for r in plain if r["policy"] == "panel" and r["n"] >= SMALLEST]
    for row in groups:
        add(f"panel, unfitted: {row['prompt']}", [row])
    held_out: dict[str, list[dict[str, Any]]] = {}
    for cut in range(cuts):
        order = rng(cut, len(pairs.keys), "pair halves").permutation(len(pairs.keys))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for fitted, rest in (halves, halves[::-1]):
            profile, _ = calibrate_pairs(pair_part(pairs, fitted))
            for row in bench_pairs(pair_part(pairs, rest), profile)["rows"]:
                if row["policy"] == "panel":
                    held_out.setdefault(row["prompt"], []).append(row)
    for group, found in sorted(held_out.items()):
        if sum(r["n"] for r in found) < SMALLEST * cuts:
            continue
        add(f"panel, fitted on the other half: {group}", found)
    judges = sorted((r for r in plain if r["policy"].startswith("judge ")), key=lambda r: r["strict"])
    add(f"worst: {judges[0]['policy']}", [judges[0]])
    add(f"best: {judges[-1]['policy']}", [judges[-1]])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rim", description="The reward system, measured.")
    parser.add_argument("what", choices=["bank", "pairs", "speed", "faults"])
    parser.add_argument("--bank", type=Path, help="recorded pointwise judgments (bank)")
    parser.add_argument("--pairs", type=Path, nargs="+", help="files of recorded pairwise judgments (pairs)")
    parser.add_argument("--cuts", type=int, default=6, help="times that the rows are cut into halves")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.what == "bank":
        if options.bank is None:
            parser.error("bank needs --bank FILE")
        rows = bank_rows(load_bank(options.bank), options.cuts)
    elif options.what == "pairs":
        if not options.pairs:
            parser.error("pairs needs --pairs FILE")
        rows = [row for path in options.pairs for row in pair_rows(load_pairs(path), path.parent.name, options.cuts)]
    else:
        rows = [*batches(), *programs(), *replies()] if options.what == "speed" else faults()
    print(results.table(rows, list(rows[0]) if options.what != "speed" else ["what", "n", "figure", "unit", "asked"]))
    if options.json:
        results.write(options.json, results.meta(f"rim.{options.what}"), rows)


if __name__ == "__main__":
    main()
