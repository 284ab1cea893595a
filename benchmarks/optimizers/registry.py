"""Names of optimizers on the command line."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.optimizers import gepa_package, published, simple
from benchmarks.optimizers.base import Optimizer
from benchmarks.server import EvalServer


def _mipro(server: EvalServer, seed: int) -> dict[str, str]:
    from benchmarks.optimizers import mipro

    return mipro.run(server, seed)


OPTIMIZERS: dict[str, Optimizer] = {
    "atlas": lambda server, seed: _atlas("")(server, seed),
    "miprov2": _mipro,  # smol only: it needs gold answers to bootstrap from
    "null": simple.null,
    "random": simple.random_search,
    "best_of_n": simple.best_of_n,
    "greedy": simple.greedy,
    "rewrite": partial(published.run, config=published.Config()),
    "delta": partial(published.run, config=published.Config(delta=True)),
    "rewrite_ungated": partial(published.run, config=published.Config(gate=False)),
    "delta_ungated": partial(published.run, config=published.Config(delta=True, gate=False)),
    "four_argmax": partial(published.run, config=published.Config(proposals=4, diverse=True)),
    "four_stable": partial(published.run, config=published.Config(proposals=4, diverse=True, stable=True)),
    "gepa": partial(gepa_package.run, config=gepa_package.DEFAULT),
    "gepa_tuned": partial(gepa_package.run, config=gepa_package.TUNED),
}
GEPA_NAMES = ("gepa", "gepa_tuned")


def get(name: str) -> Optimizer:
    """The optimizer of that name; ValueError names the known ones. `gepa:k=v+k=v` builds a gepa configuration."""
    if name.startswith("gepa:"):
        return partial(gepa_package.run, config=_config(name.removeprefix("gepa:")))
    if name.startswith("atlas:"):
        return _atlas(name.removeprefix("atlas:"))
    if name not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer {name!r}; known are {', '.join(sorted(OPTIMIZERS))} and gepa:minibatch=12+parents=4")
    return OPTIMIZERS[name]


def _atlas(text: str) -> Optimizer:
    """Ours, imported when it is asked for: `atlas`, or `atlas:width=1+operators=reflect.merge`."""
    from benchmarks.optimizers import atlas

    values: dict[str, Any] = {}
    for part in filter(None, text.split("+")):
        key, _, value = part.partition("=")
        values[key] = tuple(value.split(".")) if key == "operators" else int(value) if value.isdigit() else float(value)
    return partial(atlas.run, settings=atlas.Settings(**values))


def _config(text: str) -> gepa_package.Config:
    values: dict[str, Any] = {}
    for part in text.split("+"):
        key, _, value = part.partition("=")
        kind = gepa_package.Config.__dataclass_fields__[key].type
        values[key] = value if kind == "str" else value in ("", "1", "true") if kind == "bool" else int(value)
    return gepa_package.Config(**values)
