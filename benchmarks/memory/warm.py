"""Does a warm start help? On the toy world: rollouts until the gain that a first run ended with, for a second run cold and warm.

The gain is the true one (the world knows the chance of every prompt on its held-out questions), of the candidate that the search holds for
the best at that moment. Both second runs have the same seed; the first run has another.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.results import ROOT, Row
from gepa_atlas import loop
from gepa_atlas.build import build_experiment
from gepa_atlas.cli.session import export, to_record
from gepa_atlas.cli.warm import warmed
from gepa_atlas.config import Loaded, load_config
from gepa_atlas.evolve.engine import Evolution
from gepa_atlas.loop import Silent
from gepa_atlas.testing.toyworld import ToyWorld, WorldSettings
from gepa_atlas.types import Candidate, Decision

TOY = ROOT / "configs" / "examples" / "toyworld.yaml"


@dataclass
class Curve(Silent):
    """The candidate that is held for the best, by rollouts spent."""

    best: list[tuple[int, Candidate]] = field(default_factory=list)

    def decided(self, decision: Decision, evolution: Evolution) -> None:
        self.best.append((evolution.budget.spent, evolution.best().candidate))


def compare(seeds: int, budget: int) -> list[Row]:
    """One row a seed: another world each, a first run, then a cold and a warm one."""
    rows: list[Row] = []
    for seed in range(seeds):
        settings = WorldSettings(seed=100 + seed, noise=0.5)
        world = ToyWorld(settings)
        with tempfile.TemporaryDirectory(prefix="memory_") as place:
            first = _configured(settings, world, budget, 2 * seed, Path(place) / "first")
            gains = {"first": _run(first, world)}
            second = _configured(settings, world, budget, 2 * seed + 1, Path(place) / "second")
            gains["cold"] = _run(second, world)
            third = replace(second, config=second.config.model_copy(update={"run_dir": f"{place}/third"}))
            gains["warm"] = _run(warmed(third, f"{place}/first"), world)
        reached = gains["first"][-1][1] - 0.01
        spent = {name: _reaches(curve, reached, budget) for name, curve in gains.items()}
        rows.append(
            {
                "seed": seed,
                "first_gain": round(gains["first"][-1][1], 4),
                **{f"{name}_rollouts": spent[name] for name in gains},
                **{f"{name}_gain": round(gains[name][-1][1], 4) for name in ("cold", "warm")},
            }
        )
    return rows


def _configured(settings: WorldSettings, world: ToyWorld, budget: int, seed: int, directory: Path) -> Loaded:
    tree = {"seed": settings.seed, "noise": settings.noise}
    sets = {
        "agents.student.params.world": tree, "data.toyworld": tree, "operator_options.edit.fragments": world.fragments(),
        "max_metric_calls": budget, "seed": seed, "run_dir": str(directory), "memory.url": str(directory.parent / "memory.db"),
    }  # fmt: skip
    return load_config(TOY, [f"{key}={json.dumps(value)}" for key, value in sets.items()])


def _run(loaded: Loaded, world: ToyWorld) -> list[tuple[int, float]]:
    """(rollouts, true gain over the seed prompt) as the run goes on."""
    experiment = build_experiment(loaded)
    curve = Curve()
    result = loop.run(experiment, loaded.run_dir, curve)
    export(to_record(result, ()), result, loaded)
    seed = world.truth(experiment.seeds[0].text("guidance"))
    return [(spent, world.truth(best.text("guidance"), best.demos) - seed) for spent, best in curve.best]


def _reaches(curve: Sequence[tuple[int, float]], gain: float, budget: int) -> int:
    """Rollouts at which the curve is at the gain and stays there; the budget where it is not."""
    there = budget
    for spent, value in reversed(curve):
        if value < gain:
            break
        there = spent
    return there
