"""The ship gate: pass, fail or inconclusive, from the rows of an evaluation that nothing else has read.

`decide` is pure. `run` is the stage: it reads eval/cells.jsonl and writes gate/decision.json and gate/eval_2x2.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from gepa_atlas.errors import DataError
from gepa_atlas.handoff.workspace import StageResult, Workspace, sha256_file
from gepa_atlas.secrets import scrub_json
from gepa_atlas.ship import adapter, criteria, decision, evaluators, stats, sums
from gepa_atlas.ship.cells import Evaluation, read_cells
from gepa_atlas.ship.config import GateConfig, PackageConfig
from gepa_atlas.ship.contents import Contents, distilled, of_run, pretty
from gepa_atlas.ship.criteria import Criterion, Promoted, Subject, Verdict
from gepa_atlas.ship.registry import MANY_READS, Registry
from gepa_atlas.ship.stats import Draws
from gepa_atlas.store.exports import atomic_write
from gepa_atlas.types import digest

CELLS, EVAL = "cells.jsonl", "eval_2x2.json"
ADAPTER = Subject("adapter", "adapter+evolved", "base+evolved")
PROMPT = Subject("prompt", "base+evolved", "base+seed")
DISTILLED = Subject("adapter", "adapter+none", "base+none")  # it serves without the prompt that it learnt


class ShipConfig(Protocol):
    """The parts of a training configuration that the gate and the bundle read."""

    @property
    def gate(self) -> GateConfig: ...

    @property
    def package(self) -> PackageConfig: ...


@dataclass(frozen=True)
class Decided:
    verdict: Verdict
    reasons: tuple[str, ...]
    criteria: tuple[Criterion, ...]
    warnings: tuple[str, ...]
    figures: Mapping[str, Any]  # of the whole evaluation: stats.figures


def decide(
    found: Evaluation,
    subject: Subject,
    config: GateConfig,
    *,
    seed: int = 0,
    promoted: Promoted | None = None,
    adapter_problems: Sequence[str] | None = None,
    reads: int = 1,
    adapter_path: Path | None = None,
    prompt: str | None = None,
) -> Decided:
    """The verdict on `subject`. `adapter_problems` None: nothing was looked at, which for an adapter decides nothing.

    `reads` is how many different evaluations have read this test set, this one included.
    """
    draws = Draws(config.alpha, config.bootstrap, seed)
    rows: list[Criterion | None] = [
        criteria.scored(found, ("student", subject.treated, *_rivals(subject, config)), config),
        criteria.over_student(found, subject, config, draws),
        criteria.non_degradation(found, subject, config, draws),
        *(criteria.over_cell(found, subject, rival, config, draws) for rival in _rivals(subject, config)),
        criteria.over_promoted(found, subject, promoted, config, draws) if promoted and "promoted" in config.must_beat else None,
        criteria.regression(found, subject, config, draws),
        criteria.tokens(found, subject, config, draws),
        criteria.form(found, subject, config, draws),
        criteria.refusals(found, subject, config, draws),
        *criteria.holdout(found, subject, config, draws),
        _files(subject, adapter_problems),
    ]
    figures = stats.figures(found, config.ndr_tolerance, draws)
    evidence = {
        "cells": [row.model_dump() for row in found.rows],
        "figures": figures,
        "subject": {"kind": subject.kind, "treated": subject.treated, "reference": subject.reference},
        "prompt": prompt,
        "adapter": None if adapter_path is None else str(adapter_path),
    }
    asked = [row for row in rows if row is not None] + evaluators.ask(config.evaluators, evidence)
    verdict = criteria.verdict(asked)
    reasons = tuple(f"{c.name}: {c.reason}" for c in sorted(asked, key=lambda c: c.passed is None) if not c.passed)
    if verdict == "pass":
        reasons = (f"all {len(asked)} criteria passed",)
    return Decided(verdict, reasons, tuple(asked), _warnings(found, subject, promoted, config, figures, reads), figures)


def _rivals(subject: Subject, config: GateConfig) -> tuple[str, ...]:
    """The cells it must beat. A prompt does not have to beat itself, but the seed; a distilled adapter also the base without a prompt."""
    named: list[str] = [cell for cell in config.must_beat if cell not in ("promoted", subject.treated)]
    if subject is not ADAPTER and subject.reference not in named:
        named.append(subject.reference)
    return tuple(named)


def _files(subject: Subject, problems: Sequence[str] | None) -> Criterion | None:
    if subject.kind == "prompt":
        return None
    if problems is None:
        return Criterion("adapter_files", "the adapter's files may ship", None, reason="they were not looked at")
    return criteria.files(problems)


def _warnings(
    found: Evaluation, subject: Subject, promoted: Promoted | None, config: GateConfig, figures: Mapping[str, Any], reads: int
) -> tuple[str, ...]:
    said = []
    if reads > MANY_READS:
        said.append(f"{reads} evaluations have read this test set: a pass may be the luck of many tries; take fresh test tasks")
    if not found.cells("regression"):
        said.append("no regression suite was asked (eval.regression): general ability is not known")
    if not any(row.holdout_reward is not None for row in found.rows):
        said.append("no hold-out judge scored this evaluation (reward.holdout): a reward that was gamed would not show")
    if promoted and "promoted" not in config.must_beat:
        said.append(f"not compared with bundle {promoted.bundle[:12]}, which serves now: gate.must_beat leaves it out")
    if subject.kind == "adapter" and figures["two_by_two"] is None:
        said.append("the 2 x 2 is not whole: what is due to the prompt and what to the weights is not known")
    return tuple(said)


# -- the stage --------------------------------------------------------------------------------------------------------


def inputs(work: Workspace, config: ShipConfig) -> dict[str, str]:
    """What the gate reads beside earlier stages: what serves now, and who else is asked."""
    registry, own = Registry(Path(config.package.registry)), work.folder_of("package")
    promoted = registry.channel(config.package.operation).current or "base"
    if (own / sums.SUMS).is_file() and sums.bundle_id(own) == promoted:  # this run serves: what counts is what served before it
        promoted = str(decision.read(own)["inputs"]["promoted"])
    return {
        "promoted": promoted,
        "evaluators": digest([list(config.gate.evaluators), evaluators.versions(config.gate.evaluators)]),
    }


def run(work: Workspace, config: ShipConfig) -> StageResult:
    """The stage `gate`. A refusal is a result; whoever runs the stages ends with exit code 3 on it."""
    evaluators.check_names(config.gate.evaluators)
    path = work.folder_of("eval") / CELLS
    found, record = read_cells(path), work.finished("eval")
    contents, registry = of_run(work), Registry(Path(config.package.registry))
    subject = PROMPT if contents.adapter is None else (DISTILLED if distilled(work) else ADAPTER)
    cells_sha = sha256_file(path)
    promoted = now_promoted(registry, config.package.operation, contents)
    base = record.figures.get("base_sha256")
    problems = None
    if contents.adapter is not None:
        problems = adapter.problems(contents.adapter, base if isinstance(base, str) else None, config.gate.max_adapter_mb)
    reads = registry.record_read(config.package.operation, found.test_set(), cells_sha)
    decided = decide(
        found, subject, config.gate, seed=work.seed, promoted=promoted, adapter_problems=problems, reads=reads,
        adapter_path=contents.adapter, prompt=contents.texts["prompt.txt"].decode("utf-8"),
    )  # fmt: skip
    named = {"eval/cells.jsonl": cells_sha, "promoted": promoted.bundle if promoted else "base"}
    document = document_of(decided, subject, contents, config, inputs=named, seed=work.seed, reads=reads, cells_sha=cells_sha)
    atomic_write(work.folder / EVAL, pretty(decided.figures))
    atomic_write(work.folder / "decision.json", pretty(document))
    for warning in decided.warnings:
        work.progress.note(f"gate: {warning}")
    return StageResult(("decision.json", EVAL), summary(decided, subject, reads))


def now_promoted(registry: Registry, operation: str, contents: Contents) -> Promoted | None:
    """What serves now and its evaluation; None for the base, and where `contents` are what serves."""
    current = registry.channel(operation).current
    if current is None:
        return None
    folder = registry.folder(current)
    document = decision.read(folder)
    if contents.sha256s().items() <= document["bundle_sha256s"].items():
        return None
    treated = str(document["subject"].get("treated"))
    try:
        return Promoted(current, treated, read_cells(folder / "eval" / CELLS))
    except DataError:
        return Promoted(current, treated, None)


def document_of(
    decided: Decided, subject: Subject, contents: Contents, config: ShipConfig, *, inputs: Mapping[str, str], seed: int, reads: int,
    cells_sha: str,
) -> dict[str, Any]:  # fmt: skip
    """decision.json, signed."""
    document = {
        "schema": decision.SCHEMA,
        "operation": config.package.operation,
        "verdict": decided.verdict,
        "reasons": list(decided.reasons),
        "warnings": list(decided.warnings),
        "subject": {"kind": subject.kind, "treated": subject.treated, "reference": subject.reference},
        "criteria": [criterion.to_json() for criterion in decided.criteria],
        "inputs": dict(inputs),
        "config_sha256": digest(config.gate.model_dump(mode="json")),
        "config": config.gate.model_dump(mode="json"),
        "seed": seed,
        "test_reads": reads,
        "bundle_sha256s": contents.sha256s() | {"eval/cells.jsonl": cells_sha, EVAL: _sha(pretty(decided.figures))},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return decision.sign(scrub_json(document), config.gate.signing_key_env)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def summary(decided: Decided, subject: Subject, reads: int) -> dict[str, Any]:
    """The figures of grpo_report.json: deltas against the student, and what the subject gains over its reference."""
    by_name = {criterion.name: criterion for criterion in decided.criteria}
    cells = decided.figures["cells"]
    gain = by_name.get(f"gain_over_{subject.reference}") or by_name["gain_over_student"]
    return {
        "verdict": decided.verdict,
        "base_delta": _delta(cells, subject.reference),
        "trained_delta": _delta(cells, subject.treated),
        "gain": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "non_degradation": by_name["non_degradation"].value,
        "n_tasks": gain.n,
        "reasons": list(decided.reasons),
        "warnings": list(decided.warnings),
        "test_reads": reads,
    }


def _delta(cells: Mapping[str, Any], cell: str) -> float | None:
    found = cells.get(cell)
    return found["delta"]["value"] if found and found["delta"] else None
