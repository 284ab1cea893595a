"""The benchmark of a panel on recorded judgments: best of several, ATLAS's rule beside it on the same rows.

Nothing is fitted here: judges, weights, escalation and confidence come from the profile. Every figure is averaged over which of
the recorded draws comes first, so it is the expected figure of the policy and not of one lucky draw; intervals resample questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.rim.atlas import replay
from gepa_atlas.rim.bank import Array, Bank
from gepa_atlas.rim.calibrate import top_log_odds
from gepa_atlas.rim.figures import area, calibration_error, interval, margin, strict, tie_credit
from gepa_atlas.rim.plans import play
from gepa_atlas.rim.profile import Profile


@dataclass(frozen=True)
class Row:
    """One line of the benchmark. `calls_per_response` is a mean; `most_calls` the most that any one response got."""

    policy: str
    prompt: str
    calls_per_response: float
    n: int
    strict: float
    strict_low: float
    strict_high: float
    tie_credit: float
    escalation_auc: float | None
    ece: float | None
    most_calls: int = 0
    judges: str = ""

    def to_json(self) -> dict[str, Any]:
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class _Runs:
    """What one policy said on every row, once for each first draw: lists over first draws."""

    scores: list[Array]  # (N, A)
    calls: list[NDArray[Any]]  # (N, A)
    signal: list[Array]  # (N): high where the policy would ask more
    first_wrong: list[NDArray[np.bool_]]  # (N): was what it said before asking more wrong?
    confidence: list[Array] | None = None

    def row(self, policy: str, prompt: str, judges: str) -> Row:
        right = np.mean([strict(s) for s in self.scores], axis=0)
        low, high = interval(right)
        auc = area(np.concatenate(self.signal), np.concatenate(self.first_wrong))
        ece = None
        if self.confidence is not None:
            ece = calibration_error(np.concatenate(self.confidence), np.concatenate([strict(s) for s in self.scores]).astype(float))
        return Row(
            policy,
            prompt,
            float(np.mean([c.mean() for c in self.calls])),
            len(right),
            float(right.mean()),
            low,
            high,
            float(np.mean([tie_credit(s).mean() for s in self.scores])),
            None if np.isnan(auc) else auc,
            ece,
            int(max(c.max() for c in self.calls)),
            judges,
        )


def bench(
    bank: Bank, profile: Profile | None = None, *, most_calls: float | None = None, judges: Sequence[str] | None = None
) -> dict[str, Any]:
    """`{"meta", "rows"}`: for each prompt the rows `panel` and `atlas`. Raises DataError when bank and profile do not fit."""
    prompts = [p for p in bank.judges if (p in profile.contests if profile else len(_configured(bank, p, judges)) > 1)]
    if not prompts:
        known = ", ".join(profile.contests) if profile else ", ".join(judges or ())
        raise DataError(
            f"the bank has the prompts {', '.join(bank.judges)}; none has what was asked for ({known}): calibrate on such a bank"
        )
    rows: list[Row] = []
    chosen: dict[str, Any] = {}
    for prompt in prompts:
        if profile:
            row, chosen[prompt] = _panel(bank, profile, prompt, most_calls, judges)
        else:
            row, chosen[prompt] = _plain(bank, prompt, most_calls, judges)
        rows.append(row)
        atlas = _atlas(bank, prompt, profile)
        rows += [atlas] if atlas else []
    shared = len(set(profile.source.get("row_digests", ())) & set(bank.row_digests)) if profile else 0
    meta = {
        "bank": bank.fingerprint,
        "rows": len(bank),
        "profile": profile.identity if profile else None,
        "max_calls_per_response": most_calls,
        "rows_the_profile_was_fitted_on": shared,
        "held_out": shared == 0,
        "chosen": chosen,
        "note": "calls_per_response is the mean over responses, as escalation asks more only where answers are close",
    }
    return {"meta": meta, "rows": [row.to_json() for row in rows]}


def _configured(bank: Bank, prompt: str, judges: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(j for j in bank.judges[prompt] if judges is None or j in judges)


def _panel(bank: Bank, profile: Profile, prompt: str, cap: float | None, judges: Sequence[str] | None) -> tuple[Row, dict[str, Any]]:
    contest = profile.contests[prompt]
    names = contest.pooling.judges
    if judges is not None and set(names) - set(judges):
        extra = ", ".join(sorted(set(names) - set(judges)))
        raise ConfigError(f"the profile was fitted with {extra}, which the configuration does not seat: calibrate with the same --config")
    if not set(names) & set(bank.judges[prompt]):
        raise DataError(f"the bank has no scores of {', '.join(names)} for the prompt {prompt!r}: use a bank with the profile's judges")
    planned = contest.choose(cap)
    scores = bank.of(prompt, names)
    runs = _Runs([], [], [], [], [])
    for start in range(scores.shape[3]):
        played = play(planned.plan, contest.pooling, scores, start)
        runs.scores.append(played.last)
        runs.calls.append(played.calls)
        runs.signal.append(-top_log_odds(played.first))
        runs.first_wrong.append(~strict(played.first))
        runs.confidence.append(planned.confidence.many(top_log_odds(played.last)))  # type: ignore[union-attr]
    order = [names[j] for j in planned.plan.order[: planned.plan.stages[0]]]
    seats = [names[j] for j in sorted(set(planned.plan.order))]
    chosen = {"stages": list(planned.plan.stages), "open": planned.plan.open, "tier_1": order, "expected_calls": round(planned.calls, 3)}
    chosen["order"] = [names[j] for j in planned.plan.order]
    return runs.row("panel", prompt, ", ".join(seats)), chosen


def _plain(bank: Bank, prompt: str, cap: float | None, judges: Sequence[str] | None) -> tuple[Row, dict[str, Any]]:
    """Without a profile: the plain mean of as many judges and draws as the cap allows, in the order they are named."""
    names = _configured(bank, prompt, judges)
    scores = bank.of(prompt, names)
    total = scores.shape[3] * len(names) if cap is None else min(int(cap), scores.shape[3] * len(names))
    if total < 1:
        raise ConfigError(f"--max-calls-per-response {cap}: at least one call is needed")
    wanted = np.bincount([i % len(names) for i in range(total)], minlength=len(names))
    runs = _Runs([], [], [], [])
    for start in range(scores.shape[3]):
        taken = np.where(np.arange(scores.shape[3]) < wanted[:, None], np.roll(scores, -start, axis=3), np.nan)
        by_judge = np.nansum(taken, axis=3) / np.maximum((~np.isnan(taken)).sum(axis=3), 1)
        there = (~np.isnan(taken)).any(axis=3)
        mean = np.where(there, by_judge, 0.0).sum(axis=2) / np.maximum(there.sum(axis=2), 1)
        runs.scores.append(mean)
        runs.calls.append((wanted * ~np.isnan(scores).all(axis=3)).sum(axis=2))
        runs.signal.append(-margin(mean))
        runs.first_wrong.append(~strict(mean))
    used = [name for name, count in zip(names, wanted, strict=True) if count]
    chosen = {"draws": dict(zip(names, wanted.tolist(), strict=True)), "weights": "equal: no profile was given"}
    return runs.row("panel", prompt, ", ".join(used)), chosen


def _atlas(bank: Bank, prompt: str, profile: Profile | None) -> Row | None:
    from gepa_atlas.rim.calibrate import VENDOR_PAIRS

    fitted = profile.contests[prompt].atlas if profile else None
    pairs = [fitted] if fitted else [p for p in VENDOR_PAIRS if set(p) <= set(bank.judges[prompt])][:1]
    if not pairs:
        return None
    small, large = pairs[0]
    scores = bank.of(prompt, (small, large))
    runs = _Runs([], [], [], [])
    for start in range(scores.shape[3]):
        said = replay(scores[:, :, 0], scores[:, :, 1], start)
        runs.scores.append(said.score)
        runs.calls.append(said.calls)
        runs.signal.append(said.spread.max(axis=1))
        runs.first_wrong.append(~strict(said.small))
    return runs.row("atlas", prompt, f"{small} -> {large}")
