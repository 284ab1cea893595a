"""The gate for an optimization that changed the prompt only: its held-out lessons are the cells student, base+seed and base+evolved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gepa_atlas.errors import GateRefused
from gepa_atlas.handoff.workspace import sha256_file
from gepa_atlas.ship import bundle, evaluators
from gepa_atlas.ship.cells import of_lessons
from gepa_atlas.ship.config import GateConfig, PackageConfig
from gepa_atlas.ship.contents import Contents, pretty, prompt_files
from gepa_atlas.ship.gate import CELLS, EVAL, PROMPT, Decided, decide, document_of, now_promoted
from gepa_atlas.ship.registry import Registry
from gepa_atlas.ship.sums import DECISION
from gepa_atlas.store.exports import atomic_write, write_jsonl
from gepa_atlas.types import Candidate, Lesson


@dataclass(frozen=True)
class Prompts:
    """The two sections that the gate reads, for a run that has no training configuration."""

    gate: GateConfig
    package: PackageConfig


def contents_of(winner: Candidate) -> Contents:
    """prompt.txt has the texts of all components, in order; which is which is in prompt.json."""
    row = {
        "system": "\n\n".join(text for _, text in winner.texts), "texts": dict(winner.texts), "candidate_id": winner.id,
        "parent_hashes": list(winner.parents), "origin": winner.origin,
        "demos_json": json.dumps([demo.to_json() for demo in winner.demos]), "settings_json": json.dumps(dict(winner.settings)),
    }  # fmt: skip
    return Contents(None, prompt_files(row))


def package(
    run: Path, lessons: Sequence[Lesson], seed: Candidate, winner: Candidate, config: Prompts, *, draws: int = 0
) -> tuple[Decided, str]:
    """Decide on `winner` from the held-out lessons; returns the decision and the id of the bundle in run/bundle.

    `draws` seeds the intervals.

    Raises DataError without held-out lessons, and GateRefused with the reasons; the decision is in run/gate either way.
    """
    evaluators.check_names(config.gate.evaluators)
    found, contents = of_lessons(lessons, seed.id, winner.id), contents_of(winner)
    gate, registry, operation = run / "gate", Registry(Path(config.package.registry)), config.package.operation
    gate.mkdir(exist_ok=True)
    shutil.rmtree(run / "bundle", ignore_errors=True)
    write_jsonl(gate / CELLS, (row.model_dump() for row in found.rows))
    cells_sha = sha256_file(gate / CELLS)
    promoted = now_promoted(registry, operation, contents)
    reads = registry.record_read(operation, found.test_set(), cells_sha)
    decided = decide(found, PROMPT, config.gate, seed=draws, promoted=promoted, reads=reads, prompt=contents.texts["prompt.txt"].decode())
    named = {"cells.jsonl": cells_sha, "promoted": promoted.bundle if promoted else "base"}
    document = document_of(decided, PROMPT, contents, config, inputs=named, seed=draws, reads=reads, cells_sha=cells_sha)
    atomic_write(gate / EVAL, pretty(decided.figures))
    atomic_write(gate / DECISION, pretty(document))
    if decided.verdict != "pass":
        raise GateRefused(f"gate: {decided.verdict}: {'; '.join(decided.reasons)}. The decision is in {gate}; nothing is packaged")
    made = bundle.build(
        run / "bundle", contents, decision=gate / DECISION, evaluation=gate / EVAL, cells=gate / CELLS, operation=operation,
        license=config.package.license, data={"held-out tasks": len(found.tasks())}, manifest={"run": run.name},
    )  # fmt: skip
    return decided, made
