"""The cost model: each figure is a sum of terms of what a run does, fitted to small runs by least squares with no negative coefficient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.scale.measure import Taken

Floats = npt.NDArray[np.float64]
WINDOW = 128  # entries that the search's belief reasons about (gepa_atlas/evolve/belief.py)


@dataclass(frozen=True)
class Load:
    """What a run does."""

    examples: int
    rollouts: int
    slots: int
    candidates: int
    prompt: float  # characters


Term = Callable[[Load], float]


def _reasoned(load: Load) -> float:
    """Slots times the entries that are reasoned about at each, candidates coming in evenly."""
    n = load.candidates
    mean = n / 2 if n <= WINDOW else WINDOW * (1 - WINDOW / (2 * n))
    return load.slots * mean


def _known(load: Load) -> float:
    """Slots times all the candidates there are at each."""
    return load.slots * load.candidates / 2


def _one(load: Load) -> float:
    return 1.0


def _rollouts(load: Load) -> float:
    return float(load.rollouts)


def _slots(load: Load) -> float:
    return float(load.slots)


def _characters(load: Load) -> float:
    return load.rollouts * load.prompt


def _prompts(load: Load) -> float:
    """Every slot keeps the text it made."""
    return load.slots * load.prompt


# What each figure is a sum of. `rest` is the run without the search's decisions: calls, judges, ledger, loop.
TERMS: dict[str, tuple[Term, ...]] = {
    "rest": (_one, _rollouts, _characters),
    "engine": (_slots, _reasoned, _known),
    "report": (_one, _rollouts, _characters),
    "memory": (_one, _rollouts),
    "run_db": (_one, _rollouts, _slots, _prompts),
    "written": (_one, _rollouts, _slots, _prompts),
    "traces": (_rollouts, _characters),
    "page": (_one, _rollouts),
}


@dataclass(frozen=True)
class Model:
    """Coefficients of each figure's terms; and how many slots and candidates a rollout brought."""

    weights: dict[str, tuple[float, ...]]
    slots: float
    candidates: float

    def predict(self, load: Load) -> dict[str, float]:
        found = {name: sum(w * term(load) for w, term in zip(self.weights[name], terms, strict=True)) for name, terms in TERMS.items()}
        return found | {"seconds": found["rest"] + found["engine"]}


def load_of(taken: Taken) -> Load:
    return Load(taken.examples, taken.rollouts, taken.slots, taken.candidates, taken.prompt)


def figures(taken: Taken) -> dict[str, float]:
    """Every measured figure by the name it has in TERMS."""
    return {
        "rest": taken.seconds - taken.engine, "engine": taken.engine, "report": taken.report, "memory": taken.memory,
        "run_db": taken.run_db, "written": taken.written, "traces": taken.traces, "page": taken.page, "seconds": taken.seconds,
    }  # fmt: skip


def fit(runs: Sequence[Taken], growth: float) -> Model:
    """Relative errors count, so that a small run says as much as a large one. `growth`: seconds that each known candidate adds to a slot,
    measured on the search alone, because small runs have too few candidates to show it."""
    loads = [load_of(run) for run in runs]
    weights: dict[str, tuple[float, ...]] = {}
    for name, terms in TERMS.items():
        y = np.array([figures(run)[name] for run in runs])
        x = np.array([[term(load) for term in terms] for load in loads])
        known = np.array([0.0] * (len(terms) - 1) + [growth]) if name == "engine" else np.zeros(len(terms))
        x, left = x / y[:, None], 1.0 - (x / y[:, None]) @ known
        free = known == 0
        found = known.copy()
        found[free] = _least_squares(x[:, free], left)
        weights[name] = tuple(map(float, found))
    large = [run for run in runs if run.rollouts > 0.8 * max(r.rollouts for r in runs)]
    per = sum(run.rollouts for run in large)
    return Model(weights, sum(run.slots for run in large) / per, sum(run.candidates for run in large) / per)


def _least_squares(x: Floats, y: Floats) -> Floats:
    """Without negative coefficients: a term that would have one is left out."""
    kept = list(range(x.shape[1]))
    while True:
        found = np.linalg.lstsq(x[:, kept], y, rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    whole: Floats = np.zeros(x.shape[1])
    whole[kept] = found
    return whole
