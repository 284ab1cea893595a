"""Pairwise judges in both orders: a flip is a tie, a panel that is not sure abstains and says so.

A file is JSON lines: `{"pair_id" or "subset" and "i", "label", "judges": {name: [answer, answer with the order swapped]}}`. An answer is
"A>B", "B>A" or "A=B" as the judge saw the order (JudgeBench; may be an object with `decision`), or "1" or "2" as the responses are
numbered in the file (LLMBar). The label is written the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gepa_atlas.errors import DataError
from gepa_atlas.rim.bank import Array, json_rows
from gepa_atlas.rim.calibrate import FOLDS, folds
from gepa_atlas.rim.figures import calibration_error, interval
from gepa_atlas.types import digest

_POSITION = {"A>B": 1.0, "B>A": -1.0, "A=B": 0.0, "A<B": -1.0, "tie": 0.0}
_NUMBER = {"1": 1.0, "2": -1.0}


@dataclass(frozen=True)
class Pairs:
    """`votes` (N, J, 2): +1 where the judge prefers what the label prefers, -1 the other, 0 a tie, NaN nothing; second order unswapped."""

    keys: tuple[str, ...]
    groups: tuple[str, ...]  # subset or source of each pair
    judges: tuple[str, ...]
    votes: Array
    first: Array  # (N, J, 2): +1 where the response shown first was preferred
    digests: tuple[str, ...]


def load_pairs(path: Path) -> Pairs:
    rows: list[tuple[str, str, float, dict[str, Any]]] = []
    for number, row in json_rows(path):
        label = _answer(row.get("label"))
        if not label or not isinstance(row.get("judges"), dict):
            raise DataError(f"{path}:{number}: a pair has `label` (A>B, B>A, 1 or 2) and `judges`; correct the row")
        if any(not isinstance(said, list) or not 1 <= len(said) <= 2 for said in row["judges"].values()):
            raise DataError(
                f"{path}:{number}: a judge of a pair gives a list of one or two answers, the second with the order swapped; correct the row"
            )
        group = str(row.get("subset", row.get("source", "")))
        rows.append((str(row.get("pair_id", f"{group}/{row.get('i', number)}")), group, label[0], row["judges"]))
    judges = tuple(sorted({name for _, _, _, said in rows for name in said}))
    if not rows or not judges:
        raise DataError(f"{path}: no pairs with judges in it")
    votes, first = (np.full((len(rows), len(judges), 2), np.nan) for _ in range(2))
    for i, (_, _, label_sign, said) in enumerate(rows):
        for j, name in enumerate(judges):
            for order, entry in enumerate(said.get(name, ())):
                answer = _answer(entry)
                if answer:
                    value, by_position = answer
                    swapped = -1.0 if order else 1.0
                    votes[i, j, order] = value * label_sign * (swapped if by_position else 1.0)
                    first[i, j, order] = value * (1.0 if by_position else swapped)
    digests = tuple(digest([key, label_sign, said], 12) for key, _, label_sign, said in rows)
    return Pairs(tuple(r[0] for r in rows), tuple(r[1] for r in rows), judges, votes, first, digests)


def _answer(entry: Any) -> tuple[float, bool] | None:
    """(+1 for the first, -1 for the second, 0 for a tie; is it by position shown?), or None."""
    if isinstance(entry, dict):
        entry = entry.get("decision")
    text = str(entry).strip()
    if text in _POSITION:
        return _POSITION[text], True
    return (_NUMBER[text], False) if text in _NUMBER else None


def settled(votes: Array) -> Array:
    """(N, J) in {-1, 0, 1}: the vote both orders agree on; a flip, a tie or half an answer is 0."""
    both = votes[..., 0] == votes[..., 1]
    return np.where(both, votes[..., 0], 0.0)


def family(judge: str) -> str:
    """Judges that are one model with several prompts share a family: the name up to the first slash."""
    return judge.split("/")[0]


def families(judges: Sequence[str], votes: Array) -> tuple[tuple[str, ...], Array]:
    """(N, F) the mean settled vote of each family: many prompts of one model are one voice."""
    names = tuple(sorted({family(j) for j in judges}))
    pooled = [votes[:, [k for k, j in enumerate(judges) if family(j) == name]].mean(axis=1) for name in names]
    return names, np.stack(pooled, axis=1)


def steadiness(pairs: Pairs, names: Sequence[str]) -> Array:
    """Without labels, a family weighs by how often its two orders agree beyond a coin: position bias needs no label to be seen.

    On LLMBar this takes the unlabelled panel from .586 to .671 with ties split (adversarial neighbours .465 to .556); a family that
    was never asked in both orders weighs 1.
    """
    found = []
    for name in names:
        votes = pairs.votes[:, [k for k, judge in enumerate(pairs.judges) if family(judge) == name]]
        both = ~np.isnan(votes).any(axis=2)
        agree = float((votes[..., 0] == votes[..., 1])[both].mean()) if both.any() else 1.0
        found.append(max(0.0, 2 * agree - 1))
    return np.array(found)


# -- the panel -------------------------------------------------------------------------------------------------------------------

UNFITTED_MARGIN = 0.5  # without labels the panel speaks only when its families lean this far to one side
TRUSTED = 0.55  # with labels it speaks when its confidence is at least this


def calibrate_pairs(pairs: Pairs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights (never negative: a judge that is worse than chance is not listened to) and cross-validated figures."""
    names, x = families(pairs.judges, settled(pairs.votes))
    if len(x) < 40:
        raise DataError(f"{len(x)} pairs are too few to calibrate on; at least 40 are needed")
    fold = folds(len(x), "pairs")
    confidence = np.zeros(len(x))
    for q in range(FOLDS):
        confidence[fold == q] = _odds_to_p(x[fold == q] @ _logistic(x[fold != q]))
    decided = np.maximum(confidence, 1 - confidence) >= TRUSTED
    right = confidence[decided] > 0.5
    low = interval(right.astype(float))[0] if decided.any() else 0.0
    figures = {
        "rows": len(x),
        "accuracy_when_decided": round(float(right.mean()), 4) if decided.any() else None,
        "decided": round(float(decided.mean()), 4),
        "ece": round(_ece(confidence), 4),
    }
    weights = dict(zip(names, np.round(_logistic(x), 6).tolist(), strict=True))
    # A panel that cannot be shown to beat a coin on labelled pairs abstains on every other pair.
    return {"weights": weights, "trusted": low > 0.5, "digests": list(pairs.digests)}, figures


def _logistic(x: Array, ridge: float = 2.0) -> Array:
    """Projected Newton for sum log sigmoid(x w) - ridge/2 |w|^2 with w >= 0: every row is written as the right answer's."""
    w = np.ones(x.shape[1]) * 0.5
    for _ in range(200):
        p = _odds_to_p(x @ w)
        gradient = x.T @ (1 - p) - ridge * w
        active = (w > 0) | (gradient > 0)
        if not active.any():
            break
        xa = x[:, active]
        hessian = (xa * (p * (1 - p))[:, None]).T @ xa + ridge * np.eye(int(active.sum()))
        step = np.zeros_like(w)
        step[active] = np.linalg.solve(hessian, gradient[active])
        moved = np.maximum(w + step, 0.0) - w
        w = w + moved
        if np.abs(moved).max() < 1e-9:
            break
    return w


def _odds_to_p(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -40, 40))))


def _ece(confidence: Array) -> float:
    """Confidence is written as the probability of the right answer; the panel's own is the larger side."""
    return calibration_error(np.maximum(confidence, 1 - confidence), (confidence > 0.5) + 0.5 * (confidence == 0.5))


def bench_pairs(pairs: Pairs, fitted: dict[str, Any] | None = None) -> dict[str, Any]:
    """`{"meta", "rows"}`: the panel over all pairs and by subset, then every judge alone, both orders each."""
    votes = settled(pairs.votes)
    names, x = families(pairs.judges, votes)
    trusted = True
    if fitted:
        weights = np.array([fitted["weights"].get(name, 0.0) for name in names])
        trusted = bool(fitted["trusted"]) and bool(weights.any())
        confidence = _odds_to_p(x @ weights)
        sure = np.maximum(confidence, 1 - confidence) >= TRUSTED
        choice = np.where(sure & trusted, np.sign(confidence - 0.5), 0.0)
        ece: float | None = _ece(confidence)
    else:
        weights = steadiness(pairs, names)
        lean = x @ weights / max(float(weights.sum()), 1e-9)
        choice, ece = np.where(np.abs(lean) >= UNFITTED_MARGIN, np.sign(lean), 0.0), None
    calls = float((~np.isnan(pairs.votes)).sum() / len(votes))
    groups = np.array(pairs.groups)
    everything = np.ones(len(votes), dtype=bool)
    rows = [_row("panel", "all", choice, everything, None, None, calls, ece)]
    rows += [
        _row("panel", g, choice, np.asarray(groups == g), None, None, calls, None)
        for g in sorted(set(pairs.groups))
        if len(set(pairs.groups)) > 1
    ]
    for j, judge in enumerate(pairs.judges):
        heard = ~np.isnan(pairs.votes[:, j]).all(axis=1)
        if heard.any():  # of a judge whose answers are all null there is nothing to say
            rows.append(_row(f"judge {judge}", "all", votes[:, j], heard, pairs.votes[:, j], pairs.first[:, j], 2.0, None))
    shared = len(set(pairs.digests) & set(fitted["digests"])) if fitted else 0
    meta = {
        "pairs": len(votes),
        "families": list(names),
        "weights": fitted["weights"] if fitted else dict(zip(names, np.round(weights, 4).tolist(), strict=True)),
        "weights_by": "labels" if fitted else "consistency: twice the share of pairs on which both orders agree, less one",
        "abstains": "when families do not lean clearly to one side"
        if trusted
        else "always: the panel does not beat a coin on labelled pairs",
        "rows_the_profile_was_fitted_on": shared,
        "held_out": shared == 0,
        "note": "a flip between the two orders is a tie; tie_credit gives a tie or an abstention one half",
    }
    return {"meta": meta, "rows": rows}


def _row(
    policy: str,
    group: str,
    choice: Array,
    where: Any,
    votes: Array | None,
    first: Array | None,
    calls: float,
    ece: float | None,
) -> dict[str, Any]:
    said = choice[where]
    decided = said != 0
    right = (said > 0).astype(float)
    low, high = interval(right)
    row: dict[str, Any] = {
        "policy": policy,
        "prompt": group,
        "calls_per_pair": round(calls, 3),
        "n": int(where.sum()),
        "strict": round(float(right.mean()), 6),
        "strict_low": round(low, 6),
        "strict_high": round(high, 6),
        "tie_credit": round(float((right + 0.5 * ~decided).mean()), 6),
        "abstained": round(float((~decided).mean()), 6),
        "accuracy_when_decided": round(float(right[decided].mean()), 6) if decided.any() else None,
        "ece": None if ece is None else round(ece, 6),
    }
    if votes is not None and first is not None:
        both = ~np.isnan(votes[where]).any(axis=1)
        agree = votes[where][both, 0] == votes[where][both, 1]
        row["consistency"] = round(float(agree.mean()), 6) if both.any() else None
        row["prefers_first"] = round(float((np.nan_to_num(first[where]) > 0).mean()), 6)
    return row
