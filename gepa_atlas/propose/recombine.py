"""recombine: optuna's TPE chooses which known text fills each component, which known demonstration set goes with it, and settings.

What is known is the brief: its parents and mates are good, its rejected children are not. TPE models the difference between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from gepa_atlas.ports import Brief
from gepa_atlas.propose.drafts import Change, editable, first_sound
from gepa_atlas.settings import Settings
from gepa_atlas.types import Candidate, Draft, Scalar


class RecombineOptions(Settings):
    ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)  # numeric settings to search, such as {temperature: [0.0, 1.0]}
    choices: dict[str, tuple[Scalar, ...]] = Field(default_factory=dict)  # settings with a few values, such as {position: [prefix, suffix]}


class Recombine:
    name = "recombine"

    def __init__(self, options: RecombineOptions | None = None) -> None:
        self._options = options or RecombineOptions()

    async def propose(self, brief: Brief) -> Draft:
        good = list({c.id: c for c in (*brief.parents, *brief.mates)}.values())
        bad = [c for c in {c.id: c for c in brief.rejected}.values() if c.id not in {g.id for g in good}]
        if len(good) + len(bad) < 2 and not (self._options.ranges or self._options.choices):
            return Draft(None, "there are fewer than two known candidates to recombine")
        sample = self._sampler(brief, good, bad)
        return first_sound(brief, lambda: self._change(brief, sample), "every combination came out equal to a known candidate")

    def _change(self, brief: Brief, sample: Callable[[], dict[str, Any]]) -> Change:
        values = sample()
        parent = brief.parents[0]
        texts = {c.name: values[f"text:{c.name}"] for c in editable(brief)}
        settings = {name: values[f"setting:{name}"] for name in (*self._options.ranges, *self._options.choices)}
        child = parent.child(self.name, texts=texts, demos=values["demos"], settings=settings)
        changed = [name for name, text in texts.items() if text != parent.text(name)]
        changed += ["demonstrations"] if child.demos != parent.demos else []
        return child, f"recombined {', '.join([*changed, *(f'{k}={v}' for k, v in settings.items())])}"

    def _sampler(self, brief: Brief, good: list[Candidate], bad: list[Candidate]) -> Callable[[], dict[str, Any]]:
        """A function that draws one combination. All draws of a brief share one study, seeded from its rng."""
        import optuna  # 0.4 s, so at first use

        known = [*good, *bad]
        columns: dict[str, list[Any]] = {}
        for component in editable(brief):
            columns[f"text:{component.name}"] = [t for c in known if (t := dict(c.texts).get(component.name)) is not None]
        columns["demos"] = [c.demos for c in known]
        values = {name: list(dict.fromkeys(column)) for name, column in columns.items()}
        space: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(tuple(range(len(found)))) for name, found in values.items()
        }
        for name, (low, high) in self._options.ranges.items():
            space[f"setting:{name}"] = optuna.distributions.FloatDistribution(low, high)
        for name, found in self._options.choices.items():
            space[f"setting:{name}"] = optuna.distributions.CategoricalDistribution(found)

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            seed = int(brief.rng.integers(2**31))
            study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=0))
        finally:
            optuna.logging.set_verbosity(before)
        for candidate in known:
            params = self._params(candidate, values)
            if params is not None:
                study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=1.0 if candidate in good else 0.0))

        def sample() -> dict[str, Any]:
            drawn = study.ask(space).params
            return {name: values[name][drawn[name]] if name in values else _rounded(drawn[name]) for name in space}

        return sample

    def _params(self, candidate: Candidate, values: dict[str, list[Any]]) -> dict[str, Any] | None:
        """A known candidate as a point of the space, or None when it has no place in it. A setting it lacks has the first value."""
        texts, settings = dict(candidate.texts), dict(candidate.settings)
        params: dict[str, Any] = {}
        for name, found in values.items():
            value = candidate.demos if name == "demos" else texts.get(name.removeprefix("text:"))
            if value not in found:
                return None
            params[name] = found.index(value)
        for name, (low, high) in self._options.ranges.items():
            number = settings.get(name, low)
            if isinstance(number, str) or not low <= number <= high:
                return None
            params[f"setting:{name}"] = float(number)
        for name, allowed in self._options.choices.items():
            choice = settings.get(name, allowed[0])
            if choice not in allowed:
                return None
            params[f"setting:{name}"] = choice
        return params


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
