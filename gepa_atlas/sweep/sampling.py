"""What optuna is asked for: where a sweep begins, a setting's distribution, the sampler and the pruner of its search."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gepa_atlas.errors import MissingExtra
from gepa_atlas.evolve.rng import rng
from gepa_atlas.sweep.config import Setting, Sweep, Value
from gepa_atlas.sweep.surrogate import named
from gepa_atlas.types import digest

if TYPE_CHECKING:
    from numpy.random import Generator
    from optuna import Trial
    from optuna.distributions import BaseDistribution

_SEARCHED = 20_000  # combinations that are gone through for one that was not tried


def known_from_the_start(sweep: Sweep) -> Iterator[dict[str, Value]]:
    search = sweep.config.search
    if search.method == "matrix":
        return sweep.combinations()
    count = min(search.startup, sweep.planned()) if search.method == "tpe" else 0
    columns = {s.name: _spread(s, count, rng(search.seed, "startup", s.name)) for s in sweep.space}
    return ({name: values[i] for name, values in columns.items()} for i in range(count))


def _spread(setting: Setting, count: int, draw: Generator) -> list[Value]:
    """`count` values of a setting, each part of it as often as any other, in an order of their own (a Latin hypercube)."""
    given = setting.range
    if given is not None and (given.endless or given.log):
        low, high = (math.log(given.low), math.log(given.high)) if given.log else (given.low, given.high)
        places = [low + (high - low) * (i + draw.random()) / count for i in draw.permutation(count)]
        numbers = [min(given.high, max(given.low, math.exp(p) if given.log else p)) for p in places]
        return [round(n) for n in numbers] if given.whole else [float(n) for n in numbers]
    labels = setting.labels()
    return [labels[i] for _ in range(-(-count // len(labels))) for i in draw.permutation(len(labels))][:count]


def distribution(sweep: Sweep, setting: Setting) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if setting.range is None or sweep.config.search.method in ("matrix", "gp"):
        return CategoricalDistribution(setting.labels())
    given = setting.range
    if given.whole:
        return IntDistribution(int(given.low), int(given.high), log=given.log, step=int(given.step or 1))
    return FloatDistribution(given.low, given.high, log=given.log, step=given.step)


def suggest(trial: Trial, name: str, distribution: Any) -> None:
    """Give the trial its value of this setting, where it has none yet."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    else:
        trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def sampler(sweep: Sweep, asked: int) -> Any:
    """A sampler whose randomness is of this sweep and this trial, so that nothing has to be kept to go on."""
    from optuna.samplers import RandomSampler, TPESampler

    search = sweep.config.search
    seed = int(digest([search.seed, asked], 8), 16) % 2**31
    if search.method != "tpe":
        return RandomSampler(seed)
    return TPESampler(seed=seed, n_startup_trials=search.startup, multivariate=True, constant_liar=True)


def pruner(sweep: Sweep) -> Any:
    from optuna.pruners import HyperbandPruner, NopPruner, WilcoxonPruner

    kind = sweep.config.search.pruner
    if kind == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=len(sweep.instances), reduction_factor=3)
    if kind == "wilcoxon":
        try:
            import scipy  # noqa: F401
        except ImportError:
            raise MissingExtra("search.pruner: wilcoxon", "sweep") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna calls it experimental; what is used of it is held by tests
            return WilcoxonPruner(p_threshold=0.1)
    return NopPruner()


def nearest(sweep: Sweep, trial: Trial, tried: set[str]) -> dict[str, Value] | None:
    """Of what was not tried, the combination that differs from this trial's in the fewest settings; one of them by chance of the sweep.

    None in a space that is endless, or too large to go through: what was tried is hardly met again there.
    """
    size = sweep.size()
    if size is None or size > _SEARCHED:
        return None
    free = [c for c in sweep.combinations() if named(c) not in tried]
    draw = digest([sweep.config.search.seed, trial.number], 8)
    return min(free, key=lambda c: (sum(c[n] != v for n, v in trial.params.items()), digest([draw, named(c)], 8)), default=None)
