"""When training is no longer healthy: pure functions over the log of a run, so that a resumed run decides as the whole one would have.

Each ends training with a name: kl_ceiling, reward_collapse, entropy_collapse, length_gaming, judge_gap, nonfinite_gradients,
wrong_reference. `no_signal` is a warning: a step without any spread teaches nothing and harms nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gepa_atlas.train.config import GuardsConfig

Log = Sequence[Mapping[str, Any]]  # one mapping a logged step, oldest first
_SMOOTH = 0.2  # weight of the newest value in a moving mean
_START = 5  # steps that "at the start" means


def train_logs(history: Log) -> list[Mapping[str, Any]]:
    """The logs of training steps: those of evaluations and of the end have no reward."""
    return [row for row in history if "reward" in row]


def unhealthy(history: Log, how: GuardsConfig) -> str | None:
    """`name: what was seen`, of the first guard that the newest step trips; None while all is well."""
    rows = train_logs(history)
    for guard in (_kl_ceiling, _reward_collapse, _entropy_collapse, _length_gaming, _judge_gap):
        if rows and (why := guard(rows, how)) is not None:
            return f"{guard.__name__.removeprefix('_')}: {why}"
    return None


def no_signal(history: Log, how: GuardsConfig) -> str | None:
    """A warning where the last steps had hardly a group with any spread in its rewards."""
    rows = train_logs(history)
    shares = _last(rows, "frac_reward_zero_std", how.zero_std_patience)
    unscored = _last(rows, "judge_failed_rate", how.zero_std_patience)
    if shares is None or min(shares) <= how.zero_std_max or (unscored is not None and max(unscored) == 1.0):
        return None
    return (
        f"no_signal: for {how.zero_std_patience} steps at least {min(shares):.0%} of the groups had equal rewards, so they taught nothing; "
        "raise grpo.temperature or num_generations, or take tasks that some guidance improves"
    )


def _kl_ceiling(rows: Log, how: GuardsConfig) -> str | None:
    values = _last(rows, "kl", how.kl_patience)
    if values is None or min(values) <= how.kl_max:
        return None
    return f"KL to the starting weights was above guards.kl_max {how.kl_max:g} for {how.kl_patience} steps (now {values[-1]:.3g})"


def _reward_collapse(rows: Log, how: GuardsConfig) -> str | None:
    moving = _moving(rows, "delta_mean")
    if len(moving) < how.collapse_patience or max(moving[-how.collapse_patience :]) >= how.collapse_delta:
        return None
    return (
        f"the moving mean of delta was below guards.collapse_delta {how.collapse_delta:g} for {how.collapse_patience} steps "
        f"(now {moving[-1]:+.3f})"
    )


def _entropy_collapse(rows: Log, how: GuardsConfig) -> str | None:
    values = _last(rows, "entropy", how.kl_patience)
    if how.entropy_min <= 0 or values is None or max(values) >= how.entropy_min:
        return None
    return f"entropy was below guards.entropy_min {how.entropy_min:g} nats a token for {how.kl_patience} steps (now {values[-1]:.3g})"


def _length_gaming(rows: Log, how: GuardsConfig) -> str | None:
    clipped = _last(rows, "completions/clipped_ratio", how.length_patience)
    start = rows[0].get("completions/clipped_ratio") or 0.0
    if clipped is not None and min(clipped) > max(how.clipped_ratio_max, float(start)):
        return (
            f"more than {how.clipped_ratio_max:.0%} of the completions were cut for {how.length_patience} steps (guards.clipped_ratio_max)"
        )
    lengths = _values(rows, "completions/mean_length")
    if len(lengths) < _START + how.length_patience:
        return None
    before, now = statistics.fmean(lengths[:_START]), min(lengths[-how.length_patience :])
    if before <= 0 or now <= how.length_growth_max * before:
        return None
    return (
        f"completions grew from {before:.0f} to {now:.0f} tokens and stayed so for {how.length_patience} steps (guards.length_growth_max)"
    )


def _judge_gap(rows: Log, how: GuardsConfig) -> str | None:
    gaps, rewards = _moving(rows, "judge_gap"), _moving(rows, "reward")
    if len(gaps) <= _START or not rewards:
        return None
    grown = gaps[-1] - gaps[_START - 1]
    if grown <= how.holdout_drop or rewards[-1] <= rewards[min(_START, len(rewards)) - 1]:
        return None
    return (
        f"rewards rise, and the judges of reward.holdout do not follow: the gap grew by {grown:.3f} (guards.holdout_drop "
        f"{how.holdout_drop:g}); the judges are being gamed"
    )


def _values(rows: Log, name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name) is not None]


def _last(rows: Log, name: str, count: int) -> list[float] | None:
    """The newest `count` values; None while there are fewer, or one of the last steps has none."""
    values = [row.get(name) for row in rows[-count:]]
    known = [float(value) for value in values if value is not None]
    return known if len(known) == count else None


def _moving(rows: Log, name: str) -> list[float]:
    """The exponential moving mean after each known value."""
    means: list[float] = []
    for value in _values(rows, name):
        means.append(value if not means else (1 - _SMOOTH) * means[-1] + _SMOOTH * value)
    return means
