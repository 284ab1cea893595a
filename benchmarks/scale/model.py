"""The cost model: each figure is a sum of terms of what a run does, fitted to small runs by least squares with no negative coefficient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.scale.measure import Taken

Floats = npt.NDArray[np.float64]
WEIGHTS = 256  # of the search's belief, at most (gepa_atlas/evolve/belief.py)


@dataclass(frozen=True)
class Load:
    """What a run does."""

    rollouts: int
    slots: int
    known: float  # candidates, mean over slots
    weights: float  # of the search's belief, mean over slots
    prompt: float  # characters


Term = Callable[[Load], float]


def _weighed(load: Load) -> float:
    """Slots times what the belief is a Gaussian over at each: it grows at first, and then keeps its size."""
    return load.slots * load.weights


def _known(load: Load) -> float:
    """Slots times all the candidates there are at each."""
    return load.slots * load.known


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
    "rest": (_one, _rollouts, _characters, _slots, _prompts),
    "engine": (_slots, _weighed, _known),
    "report": (_one, _rollouts, _characters),
    "memory": (_one, _rollouts, _slots),
    "run_db": (_one, _rollouts, _slots, _prompts),
    "written": (_one, _rollouts, _slots, _prompts),
    "traces": (_rollouts, _characters),
    "page": (_one, _rollouts, _slots),
}


@dataclass(frozen=True)
class Model:
    """Coefficients of each figure's terms; slots and candidates a rollout, and the mean share of the candidates that a slot knows."""

    weights: dict[str, tuple[float, ...]]
    slots: float
    candidates: float
    known: float

    def predict(self, load: Load) -> dict[str, float]:
        found = {name: sum(w * term(load) for w, term in zip(self.weights[name], terms, strict=True)) for name, terms in TERMS.items()}
        return found | {"seconds": found["rest"] + found["engine"]}


def load_of(taken: Taken) -> Load:
    return Load(taken.rollouts, taken.slots, taken.known, taken.weights, taken.prompt)


def figures(taken: Taken) -> dict[str, float]:
    """Every measured figure by the name it has in TERMS."""
    return {
        "rest": taken.seconds - taken.engine, "engine": taken.engine, "report": taken.report, "memory": taken.memory,
        "run_db": taken.run_db, "written": taken.written, "traces": taken.traces, "page": taken.page, "seconds": taken.seconds,
    }  # fmt: skip


def fit(runs: Sequence[Taken], usual: Sequence[Taken]) -> Model:
    """Relative errors count, so that a small run says as much as a large one. `usual`: the runs that say what a rollout brings."""
    loads = [load_of(run) for run in runs]
    weights: dict[str, tuple[float, ...]] = {}
    for name, terms in TERMS.items():
        y = np.array([figures(run)[name] for run in runs])
        x = np.array([[term(load) for term in terms] for load in loads])
        weights[name] = tuple(map(float, _least_squares(x / y[:, None], np.ones(len(y)))))
    per = sum(run.rollouts for run in usual)
    return Model(
        weights,
        sum(run.slots for run in usual) / per,
        sum(run.candidates for run in usual) / per,
        sum(run.known for run in usual) / sum(run.candidates for run in usual),
    )


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
