"""Calibration: from labelled judgments to a profile. Every figure is cross-validated by row; the profile itself uses all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gepa_atlas.errors import DataError
from gepa_atlas.evolve.rng import rng
from gepa_atlas.rim.bank import Array, Bank
from gepa_atlas.rim.figures import area, calibration_error, strict
from gepa_atlas.rim.plans import Plan, best_order, candidates, play
from gepa_atlas.rim.pooling import Pooling, average, draw_noise, fit, positive, softmax
from gepa_atlas.rim.profile import Contest, Planned, Platt, Points, Profile

FOLDS = 5
# Pairs of one vendor's small and large judge, as ATLAS's rule wants them.
VENDOR_PAIRS = (("gpt-5.4-mini", "gpt-5.4"), ("claude-haiku-4.5", "claude-sonnet-4.6"), ("gpt-5.4-nano", "gpt-5.4"))


def calibrate_bank(
    bank: Bank, *, judges: Sequence[str] | None = None, prompts: Sequence[str] | None = None, most_draws: int = 8
) -> Profile:
    """Fit every prompt of the bank that has two or more judges (of `judges`, when given) and rows enough."""
    contests: dict[str, Contest] = {}
    points: dict[str, Points] = {}
    figures: dict[str, Any] = {}
    for prompt in prompts or bank.judges:
        names = tuple(j for j in bank.judges[prompt] if judges is None or j in judges)
        if len(names) < 2:
            continue
        scores = bank.of(prompt, names)
        contests[prompt], figures[prompt] = _contest(names, scores, min(most_draws, scores.shape[3]))
        rows, responses = scores.shape[:2]
        flat = scores.reshape(rows * responses, len(names), -1)
        right = np.tile(np.arange(responses) == 0, rows).astype(float)
        points[prompt], figures[f"{prompt}, one response"] = fit_points(names, flat, right, groups=np.repeat(np.arange(rows), responses))
    if not contests:
        raise DataError("the bank has no prompt with two or more of the judges; a panel needs two")
    source = {"bank": bank.fingerprint, "rows": len(bank), "row_digests": list(bank.row_digests)}
    return Profile(source, contests, points, figures)


@dataclass(frozen=True)
class _Tally:
    right: list[Array]
    calls: list[Array]
    log_odds: list[Array]


def _contest(names: tuple[str, ...], scores: Array, most: int) -> tuple[Contest, dict[str, Any]]:
    model = fit(names, scores)
    length = most * len(names)
    fold = folds(len(scores))
    tallies: dict[tuple[tuple[int, ...], float], _Tally] = {}
    for q in range(FOLDS):
        inner = fit(names, scores[fold != q])
        order = best_order(inner, length, most)
        for plan in candidates(order):
            tally = tallies.setdefault((plan.stages, plan.open), _Tally([], [], []))
            for start in range(0, scores.shape[3], 3):
                played = play(plan, inner, scores[fold == q], start)
                tally.right.append(strict(played.last).astype(float))
                tally.calls.append(played.calls.mean(axis=1))
                tally.log_odds.append(top_log_odds(played.last))
    order = best_order(model, length, most)
    starts = len(range(0, scores.shape[3], 3))
    plans = []
    for (stages, threshold), tally in tallies.items():
        right, calls, log_odds = (np.concatenate(part) for part in (tally.right, tally.calls, tally.log_odds))
        error = float(calls.std() / np.sqrt(len(calls) / starts))
        plan = Plan(order[: stages[-1]], stages, threshold)
        plans.append(Planned(plan, float(calls.mean()), error, float(right.mean()), Platt.fit(log_odds, right).halfway()))
    atlas = _best_pair(names, scores)
    best = max(plans, key=lambda p: p.accuracy)
    figures = {
        "rows": len(scores),
        "accuracy_by_calls": [[round(p.calls, 2), round(p.accuracy, 4)] for p in _frontier(plans)],
        "best": round(best.accuracy, 4),
        "noise_of_one_draw": {n: round(float(v) ** 0.5, 4) for n, v in zip(names, model.noise, strict=True)},
    }
    return Contest(model, tuple(plans), atlas), figures


def _frontier(plans: Sequence[Planned]) -> list[Planned]:
    kept: list[Planned] = []
    for p in sorted(plans, key=lambda p: (p.calls, -p.accuracy)):
        if not kept or p.accuracy > kept[-1].accuracy:
            kept.append(p)
    return kept


def _best_pair(names: tuple[str, ...], scores: Array) -> tuple[str, str] | None:
    from gepa_atlas.rim.atlas import replay

    pairs = [(small, large) for small, large in VENDOR_PAIRS if small in names and large in names]
    if not pairs:
        return None
    return max(pairs, key=lambda p: float(strict(replay(scores[:, :, names.index(p[0])], scores[:, :, names.index(p[1])]).score).mean()))


def top_log_odds(log_posterior: Array) -> Array:
    """Log-odds that the answer with the highest posterior is the best one."""
    top = np.sort(softmax(log_posterior), axis=1)[:, -1]
    top = np.clip(top, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(top / (1 - top)))


def folds(rows: int, purpose: str = "calibrate") -> NDArray[np.int64]:
    return rng(0, rows, purpose).permutation(rows) % FOLDS


# -- one response: is it right? ----------------------------------------------------------------------------------------------


def fit_points(
    names: tuple[str, ...], scores: Array, label: Array, *, groups: NDArray[np.int64] | None = None, lengths: Array | None = None
) -> tuple[Points, dict[str, Any]]:
    """Fit P(right) on scores (N, J, D) and labels (N) in [0, 1]; rows of one group stay in one fold. Returns figures with it."""
    groups = np.arange(len(label)) if groups is None else groups
    if len(label) < 20 or not 3 <= label.sum() <= len(label) - 3:
        raise DataError(f"{len(label)} labels with {label.sum():g} right ones: at least 20, with 3 of each kind, are needed to calibrate")
    fold = folds(int(groups.max()) + 1)[groups]
    log_odds = np.zeros(len(label))
    for q in range(FOLDS):
        if (fold == q).any():
            inner, slope = _discriminant(names, scores[fold != q], label[fold != q], None if lengths is None else lengths[fold != q])
            log_odds[fold == q] = _log_odds(inner, scores[fold == q]) - (0 if lengths is None else slope * np.log2(lengths[fold == q]))
    held_out = np.zeros(len(label))
    for q in range(FOLDS):
        if (fold == q).any():
            held_out[fold == q] = Platt.fit(log_odds[fold != q], label[fold != q]).many(log_odds[fold == q])
    model, slope = _discriminant(names, scores, label, lengths)
    # On the labels' own scale only: what a judge gives on average beyond what is right on average.
    in_unit = bool(np.nanmax(scores) <= 1.0)
    bias = {n: round(float(np.nanmean(scores[:, j]) - label.mean()), 4) for j, n in enumerate(names) if in_unit}
    measured = frozenset(n for j, n in enumerate(names) if bool(((~np.isnan(scores[:, j])).sum(axis=1) > 1).any()))
    figures = {
        "rows": len(label),
        "accuracy": round(float(((held_out > 0.5) == (label > 0.5)).mean()), 4),
        "auc": round(area(held_out, label > 0.5), 4),
        "ece": round(calibration_error(held_out, label), 4),
        "bias": bias,
        "noise_of_one_draw": {
            n: round(float(v) ** 0.5, 4) if n in measured else "not measured: nothing was judged twice"
            for n, v in zip(names, model.noise, strict=True)
        },
        "weights": {n: round(float(w), 4) for n, w in zip(names, model.weights(np.ones(len(names), dtype=np.int64)), strict=True)},
        "length_slope": round(slope, 4),
    }
    return Points(model, Platt.fit(log_odds, label), bias, slope, measured), figures


def _discriminant(names: tuple[str, ...], scores: Array, label: Array, lengths: Array | None) -> tuple[Pooling, float]:
    """Linear discriminant of right against wrong with the noise of a draw apart, and the slope of log-odds on log2(length)."""
    mean = average(scores, 2)
    whole = ~np.isnan(mean).any(axis=1)
    x, y = mean[whole], label[whole] > 0.5
    noise = np.array([draw_noise(scores[:, j]) for j in range(len(names))])
    low, high = x[~y].mean(axis=0), x[y].mean(axis=0)
    residual = x - np.where(y[:, None], high, low)
    covariance = residual.T @ residual / max(len(x) - 2, 1)
    shrunk = 0.95 * covariance + 0.05 * np.diag(np.diag(covariance)) + 1e-6 * np.eye(len(names))
    draws = float((~np.isnan(scores)).sum(axis=2).mean())
    model = Pooling(names, low, np.nanstd(scores, axis=(0, 2)), high - low, noise, positive(shrunk - np.diag(noise / draws)), 0 * shrunk)
    if lengths is None:
        return model, 0.0
    log_length = np.log2(np.maximum(lengths[whole], 1))
    gap, odds = log_length - np.where(y, log_length[y].mean(), log_length[~y].mean()), _log_odds(model, scores[whole])
    centred = odds - np.where(y, odds[y].mean(), odds[~y].mean())
    return model, float(gap @ centred / max(float(gap @ gap), 1e-9))


def _log_odds(model: Pooling, scores: Array) -> Array:
    there = ~np.isnan(scores)
    count = np.asarray(there.sum(axis=2), dtype=np.int64)[:, None, :]
    mean = (np.where(there, scores, 0.0).sum(axis=2) / np.maximum(count[:, 0], 1))[:, None, :]
    return model.log_posterior(mean, count)[:, 0]
