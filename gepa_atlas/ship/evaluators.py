"""Criteria of a customer's own: functions of another package under the entry point group `gepa_atlas.evaluators`.

    def evaluate(evidence: Mapping) -> Mapping    # {"passed": True | False | None, "value"?, "low"?, "high"?, "threshold"?, "reason"?}

`evidence` has `cells` (the rows of the evaluation), `figures`, `subject` {kind, treated, reference}, `prompt` (the text, or None) and
`adapter` (the path of its folder, or None). What such a function raises, or an answer that is none, makes its criterion undecided with
the reason: never passed.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gepa_atlas import plugins
from gepa_atlas.errors import ConfigError, ContractError, said
from gepa_atlas.ship.criteria import Criterion

GROUP = "gepa_atlas.evaluators"
_NUMBERS = ("value", "low", "high", "threshold")


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError for a name that no installed package offers."""
    known = plugins.providers({}, GROUP)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none is installed'}"
            raise ConfigError(f"gate.evaluators: no evaluator {name!r} in the entry points {GROUP}; {hint}")


def ask(names: Sequence[str], evidence: Mapping[str, Any]) -> list[Criterion]:
    """One criterion for each name, in that order."""
    return [_ask(name, evidence) for name in names]


def _ask(name: str, evidence: Mapping[str, Any]) -> Criterion:
    rule = f"the evaluator {name} says so"
    try:
        evaluate = plugins.builder(name, {}, GROUP, where="gate.evaluators", near_from=0.5)
        answer = evaluate(dict(evidence))
    except (ConfigError, ContractError) as error:
        return Criterion(name, rule, None, reason=f"it cannot be loaded: {error}")
    except (Exception, SystemExit) as error:  # the border to foreign code
        return Criterion(name, rule, None, reason=f"it failed: {said(error)}")
    if not isinstance(answer, Mapping) or not (answer.get("passed") is None or isinstance(answer.get("passed"), bool)):
        return Criterion(name, rule, None, reason="its answer has no `passed` of true, false or null")
    numbers = {key: answer.get(key) for key in _NUMBERS}
    odd = [key for key, value in numbers.items() if value is not None and not _number(value)]
    if odd:
        return Criterion(name, rule, None, reason=f"its {odd[0]} is no finite number: {numbers[odd[0]]!r}")
    passed = answer.get("passed")
    reason = str(answer.get("reason") or ("" if passed else "it gave no reason"))
    value, low, high, threshold = (None if number is None else float(number) for number in numbers.values())
    return Criterion(name, rule, passed, value, low, high, threshold, reason=reason)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def versions(names: Sequence[str]) -> dict[str, str]:
    """Which distribution and version each named evaluator is from."""
    found = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name in names:
            found[point.name] = f"{point.value} {point.dist.version}" if point.dist else point.value
    return found
