"""Runs that nobody made yet: the fitted model, and the arrays of the search by their shapes."""

from __future__ import annotations

from benchmarks.results import Row
from benchmarks.scale.model import WEIGHTS, Load, Model

LIMITS = {"memory GB": 16.0, "run.db GB": 100.0, "core hours": 24.0, "page MB": 50.0}
STEPS = [
    (2_000, 400, 20_000),
    (1_000, 1_000, 100_000),
    (3_000, 3_000, 1_000_000),
    (10_000, 10_000, 3_000_000),
    (10_000, 10_000, 10_000_000),
]
_PROMPT = 1500.0  # characters
_ITEMS = 1.0  # new items a candidate brings
_VAL_AND_TRAIN = 0.6


def arrays(candidates: int, examples: int) -> float:
    """Bytes of the search's own arrays: the matrix of gains and counts, what each candidate is made of, and which items are about which
    examples. Each grows by doubling, and the old half lives until the new one is filled."""
    rows, columns, items = _doubled(8, candidates), _VAL_AND_TRAIN * examples, _doubled(64, round(_ITEMS * candidates))
    return 1.5 * (12 * rows * columns + 8 * _doubled(16, candidates) * items + items * columns)


def _doubled(start: int, needed: int) -> int:
    while start < needed:
        start *= 2
    return start


def ahead(model: Model) -> list[Row]:
    """A row a size; `breaks` names what passes its limit, the worst first."""
    rows: list[Row] = []
    for candidates, examples, rollouts in STEPS:
        load = Load(rollouts, round(max(candidates, model.slots * rollouts)), model.known * candidates, WEIGHTS, _PROMPT)
        found = model.predict(load)
        figures = {
            "memory GB": found["memory"] / 1e3 + arrays(candidates, examples) / 1e9,
            "run.db GB": found["run_db"] / 1e9,
            "core hours": (found["seconds"] + found["report"]) / 3600,
            "page MB": found["page"] / 1e6,
        }
        over = sorted((name for name in figures if figures[name] > LIMITS[name]), key=lambda name: -figures[name] / LIMITS[name])
        rows.append(
            {"candidates": candidates, "examples": examples, "rollouts": rollouts, **figures, "breaks": ", ".join(over) or "nothing"}
        )
    return rows
