"""The criteria of the gate, each passed, failed or undecided. All must pass, so none needs a correction for being one of many.

A criterion that is a claim (better, not worse) passes when the whole interval is on the right side and fails when the whole interval is
on the wrong one; in between the evidence decides nothing. One that is a limit on what was seen (tokens, format) passes on the figure
itself and fails when the interval leaves no doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gepa_atlas.ship import stats
from gepa_atlas.ship.cells import Evaluation, Kind
from gepa_atlas.ship.config import GateConfig
from gepa_atlas.ship.stats import READS, Draws, Estimate

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Criterion:
    """One line of a decision. `passed` is None where the evidence does not decide; `reason` says why it is not passed."""

    name: str
    rule: str
    passed: bool | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    n: int = 0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "rule": self.rule, "passed": self.passed, "value": self.value, "low": self.low, "high": self.high,
            "threshold": self.threshold, "n": self.n, "reason": self.reason,
        }  # fmt: skip


def verdict(criteria: Sequence[Criterion]) -> Verdict:
    """Intersection-union: all must pass; one certain failure fails; otherwise anything undecided is inconclusive. None at all is too."""
    if any(c.passed is False for c in criteria):
        return "fail"
    return "pass" if criteria and all(c.passed is True for c in criteria) else "inconclusive"


@dataclass(frozen=True)
class Subject:
    """What would go live: the cell that stands for it, and the one that it replaces."""

    kind: Literal["adapter", "prompt"]
    treated: str
    reference: str


@dataclass(frozen=True)
class Promoted:
    """What serves now, as its own evaluation saw it."""

    bundle: str
    treated: str
    evaluation: Evaluation | None


# -- claims -----------------------------------------------------------------------------------------------------------


def claim(name: str, rule: str, found: Estimate, threshold: float, nothing: str) -> Criterion:
    """Passed when the lower end is above `threshold`, failed when the upper end is not."""
    if found.low is None or found.high is None:
        return Criterion(name, rule, None, threshold=threshold, reason=nothing)
    passed = True if found.low > threshold else (False if found.high <= threshold else None)
    reason = "" if passed else f"{_said(found)} against {threshold:+.3f}" + ("" if passed is False else ": not enough evidence")
    return Criterion(name, rule, passed, found.value, found.low, found.high, threshold, found.n, reason)


def _said(found: Estimate) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] on {found.n} tasks"


def over_student(found: Evaluation, subject: Subject, config: GateConfig, draws: Draws) -> Criterion:
    deltas = found.deltas(subject.treated)
    return claim(
        "gain_over_student", f"lower bound of the paired delta of {subject.treated} > min_delta_lcb",
        stats.mean(list(deltas.values()), draws), config.min_delta_lcb,
        f"no task was scored for both {subject.treated} and the student alone",
    )  # fmt: skip


def over_cell(found: Evaluation, subject: Subject, rival: str, config: GateConfig, draws: Draws) -> Criterion:
    """Better than a rival cell. A distilled adapter saves the prompt's tokens: it need only not be worse than the prompt."""
    gain = stats.paired(found.rewards(subject.treated), found.rewards(rival), draws)
    nothing = f"no task was scored for both {subject.treated} and {rival}"
    if subject.treated == "adapter+none" and rival == "base+evolved":
        rule = f"lower bound of {subject.treated} - {rival} > -promoted_margin"
        return claim(f"not_worse_than_{rival}", rule, gain, -config.promoted_margin, nothing)
    return claim(f"gain_over_{rival}", f"lower bound of {subject.treated} - {rival} > 0", gain, 0.0, nothing)


def non_degradation(found: Evaluation, subject: Subject, config: GateConfig, draws: Draws) -> Criterion:
    """Point and Wilson bound; n tasks of n must be enough for the bound, or nothing can be shown with them."""
    seen = stats.non_degradation(found.deltas(subject.treated), config.ndr_tolerance, draws)
    rule = f"share of tasks with delta >= -{config.ndr_tolerance:g} is >= {config.min_ndr:g}, its Wilson lower bound >= min_ndr_lcb"
    if seen.value is None or seen.low is None or seen.high is None:
        return Criterion("non_degradation", rule, None, threshold=config.min_ndr_lcb, reason="no task has a delta")
    enough = seen.value >= config.min_ndr and seen.low >= config.min_ndr_lcb
    surely_not = seen.high < max(config.min_ndr, config.min_ndr_lcb)
    passed = True if enough else (False if surely_not else None)
    reason = ""
    if not passed:
        reason = f"{round(seen.value * seen.n)} of {seen.n} tasks did not degrade: [{seen.low:.3f}, {seen.high:.3f}]"
        reason += "" if surely_not else f" does not show {config.min_ndr_lcb:g}"
    return Criterion("non_degradation", rule, passed, seen.value, seen.low, seen.high, config.min_ndr_lcb, seen.n, reason)


def over_promoted(found: Evaluation, subject: Subject, promoted: Promoted, config: GateConfig, draws: Draws) -> Criterion:
    """Not worse than what serves now: its cell of this evaluation, else its own evaluation on the tasks that both saw."""
    name, rule = "not_worse_than_promoted", f"lower bound of {subject.treated} - bundle {promoted.bundle[:12]} > -promoted_margin"
    mine = found.rewards(subject.treated)
    theirs = found.rewards("promoted")
    if theirs:
        gain = stats.paired(mine, theirs, draws)
    elif promoted.evaluation is not None:
        # Two evaluations: each against its own run of the student, so that a change of the student is not taken for one of ours.
        ours, other = found.deltas(subject.treated), promoted.evaluation.deltas(promoted.treated)
        apart = [ours[task] - other[task] for task in sorted(ours.keys() & other.keys())]
        gain = stats.mean(list(np.clip(apart, -1.0, 1.0)), draws)  # two rewards differ by no more: the rest is noise of the student
    else:
        gain = stats.NOTHING
    return claim(name, rule, gain, -config.promoted_margin, "the promoted bundle was not evaluated on any of these tasks")


def regression(found: Evaluation, subject: Subject, config: GateConfig, draws: Draws) -> Criterion | None:
    """General ability, of the cells that were asked the suite; None where there are no such rows."""
    pair = _pair(found, "regression", subject)
    if pair is None:
        return None
    mine, theirs = pair
    loss = stats.paired(found.rewards(mine, "regression"), found.rewards(theirs, "regression"), draws)
    return claim(
        "regression_suite", f"lower bound of {mine} - {theirs} on the regression suite > -max_regression", loss,
        -config.max_regression, f"no row of the suite was scored for both {mine} and {theirs}",
    )  # fmt: skip


def refusals(found: Evaluation, subject: Subject, config: GateConfig, draws: Draws) -> Criterion | None:
    """Under-specified questions should be refused; a criterion only where the configuration says so."""
    if config.min_refusal is None:
        return None
    rule = "share of under-specified questions that are refused >= min_refusal"
    seen = found.means(subject.treated, READS["refused"], "underspecified")
    return limit("refusals", rule, stats.mean(list(seen.values()), draws, (0.0, 1.0)), config.min_refusal, at_least=True)


def _pair(found: Evaluation, kind: Kind, subject: Subject) -> tuple[str, str] | None:
    """The cells to compare on rows of `kind`: those without the teacher prompt first, as the suite is about general ability."""
    there = found.cells(kind)
    if not there:
        return None
    choices = [("adapter", "base"), ("adapter+none", "base+none"), ("adapter+seed", "base+seed")] if subject.kind == "adapter" else []
    choices.append((subject.treated, subject.reference))
    return next((pair for pair in choices if set(pair) <= set(there)), choices[-1])


# -- limits -----------------------------------------------------------------------------------------------------------


def limit(name: str, rule: str, found: Estimate, threshold: float, *, at_least: bool) -> Criterion:
    """Passed on the figure itself; failed when the whole interval is beyond the threshold."""
    if found.value is None or found.low is None or found.high is None:
        return Criterion(name, rule, None, threshold=threshold, reason="nothing was measured")
    kept = found.value >= threshold - 1e-12 if at_least else found.value <= threshold + 1e-12
    broken = found.high < threshold if at_least else found.low > threshold
    passed = True if kept else (False if broken else None)
    reason = "" if passed else f"{_said(found)}; the limit is {threshold:g}"
    return Criterion(name, rule, passed, found.value, found.low, found.high, threshold, found.n, reason)


def tokens(found: Evaluation, subject: Subject, config: GateConfig, draws: Draws) -> Criterion | None:
    if config.max_tokens_ratio is None or subject.kind == "prompt":  # the length of a prompt is the optimizer's to weigh
        return None
    seen = stats.ratio(found.means(subject.treated, READS["tokens"]), found.means(subject.reference, READS["tokens"]), draws)
    rule = f"tokens of {subject.treated} over those of {subject.reference} <= max_tokens_ratio"
    return limit("tokens_ratio", rule, seen, config.max_tokens_ratio, at_least=False)


def form(found: Evaluation, subject: Subject, config: GateConfig, draws: Draws) -> Criterion | None:
    """Valid guidance: at least `min_format_valid`, or not below the reference; None where no row says whether it is valid."""
    mine = found.means(subject.treated, READS["format_valid"])
    if config.min_format_valid is not None:
        rule = f"share of valid guidance of {subject.treated} >= min_format_valid"
        seen = stats.mean(list(mine.values()), draws, (0.0, 1.0))
        return limit("format_valid", rule, seen, config.min_format_valid, at_least=True)
    theirs = found.means(subject.reference, READS["format_valid"])
    if not mine and not theirs:
        return None
    rule = f"share of valid guidance of {subject.treated} is not below that of {subject.reference}"
    return limit("format_valid", rule, stats.paired(mine, theirs, draws), 0.0, at_least=True)


def holdout(found: Evaluation, subject: Subject, config: GateConfig, draws: Draws) -> list[Criterion]:
    """The judge that training never asked: its gain has the sign of ours, and task by task it rarely says the opposite."""
    theirs = found.means(subject.treated, READS["holdout_reward"])
    before = found.means("student", READS["holdout_reward"]) or found.means(subject.reference, READS["holdout_reward"])
    shared = sorted(theirs.keys() & before.keys())
    if not theirs:
        return []
    against = "student" if found.means("student", READS["holdout_reward"]) else subject.reference
    gain = stats.paired(theirs, before, draws)
    rule = f"gain of {subject.treated} over {against} by the hold-out judge > 0 (its sign)"
    value, high = gain.value, gain.high
    passed = None if value is None or high is None else (True if value > 0 else (False if high < 0 else None))
    reason = "" if passed else ("no task has both sides" if value is None else f"{_said(gain)} by the hold-out judge")
    sign = Criterion("holdout_judge", rule, passed, gain.value, gain.low, gain.high, 0.0, gain.n, reason)
    ours_after, ours_before = found.rewards(subject.treated), found.rewards(against)
    moved = [
        (ours_after[task] - ours_before[task]) * (theirs[task] - before[task]) >= 0
        for task in shared
        if task in ours_after and task in ours_before and abs(ours_after[task] - ours_before[task]) > config.ndr_tolerance
    ]
    rule = "share of tasks whose reward moved and where the hold-out judge does not say the opposite >= judge_agreement_min"
    if not moved:
        return [sign]
    return [sign, limit("judge_agreement", rule, stats.share(sum(moved), len(moved), draws), config.judge_agreement_min, at_least=True)]


def scored(found: Evaluation, cells: Sequence[str], config: GateConfig) -> Criterion:
    """The evaluation itself: too many unscored answers decide nothing, for or against."""
    missing, planned, reasons = found.unscored(cells)
    share = missing / planned if planned else 1.0
    passed = True if share <= config.max_unscored else None
    named = ", ".join(f"{reason} x {count}" for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:3])
    reason = "" if passed else f"{missing} of {planned} answers have no reward ({named}); mend the cause and evaluate again"
    return Criterion(
        "scored", "share of answers without a reward <= max_unscored", passed, share, None, None, config.max_unscored, planned, reason
    )


def files(problems: Sequence[str]) -> Criterion:
    """The adapter's own files; see `adapter.problems`."""
    rule = "safetensors only, trained on this base, every number finite, no reference adapter, below the size limit"
    return Criterion("adapter_files", rule, not problems, reason="; ".join(problems))
