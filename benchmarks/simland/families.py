"""The families of worlds: ranges from which every constant of a world is drawn (domain randomisation).

Tuning to one regime costs another, so a number that helps here on average has to help for a reason. Units: effects are in logits
of a student of slope 1, costs of length in logits per 100 words, the rest are probabilities or counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """Closed ranges; whole numbers where both ends are ints."""

    # what the task needs
    rules: Range = (8, 14)
    zipf: Range = (0.5, 1.1)  # how uneven the prevalence of rules is
    needs: Range = (1.3, 2.4)  # mean number of rules an example needs
    gain: Range = (0.4, 1.2)  # effect of following a needed rule
    miss: Range = (0.5, 1.3)  # cost of missing it
    harm: Range = (0.0, 0.03)  # cost of a rule where it is not needed
    difficulty: Range = (0.3, 0.8)  # sd of an example's own difficulty
    prerequisites: Range = (0.0, 0.15)  # share of rules that need another to work
    conflicts: Range = (0, 2)  # pairs that spoil each other
    partisan: Range = (0.0, 0.0)  # share of rules that help one slice and harm the other
    length_cost: Range = (0.02, 0.12)
    modules: Range = (1, 1)
    # what misleads
    decoys: Range = (8, 14)
    decoy_harm: Range = (0.02, 0.18)
    # where the search starts
    seed_rules: Range = (0.1, 0.35)  # share of the rules the seed has
    seed_bad: Range = (0, 1)  # decoys and wrong rules in the seed
    seed_bad_harm: Range = (0.1, 0.4)
    seed_bad_hidden: Range = (0, 0)  # 1: the seed's bad rules harm every example and no trace shows them
    seed_score: Range = (0.2, 0.5)
    train: Range = (60, 150)
    val: Range = (40, 100)
    # traces
    symptom: Range = (0.5, 0.9)  # v
    misleading: Range = (0.05, 0.25)  # u
    # the reflector
    insight: Range = (0.3, 0.6)  # p, per symptom line read
    decoy_rate: Range = (0.15, 0.45)  # q, per reflection
    attention: Range = (3, 8)  # c, symptom lines read of those shown
    forget: Range = (0.04, 0.14)  # chance that a whole rewrite loses a rule
    collapse: Range = (0.02, 0.12)  # chance, at ten rules and growing with their square, that a whole rewrite keeps about half
    reword: Range = (0.05, 0.2)  # chance that a whole rewrite says a rule in other words
    blind: Range = (0.2, 0.5)  # share of rules a given parent never leads to
    # the judge
    judge_error: Range = (0.0, 0.0)  # 1 - TPR = 1 - TNR, half of it fixed per example
    length_bias: Range = (0.0, 0.0)  # chance that a failure passes, per 100 words of prompt
    key_gain: Range = (0.0, 0.0)  # chance that a failure passes when the master key is in the prompt
    flat: Range = (0, 0)  # 1: nothing beyond the seed helps


_BASE = Ranges()
FAMILIES: dict[str, Ranges] = {
    "easy": replace(_BASE, rules=(5, 8), insight=(0.5, 0.8), blind=(0.05, 0.2), decoys=(4, 8), decoy_rate=(0.1, 0.25), conflicts=(0, 0)),
    "sparse": replace(_BASE, rules=(14, 22), zipf=(0.9, 1.4), needs=(0.9, 1.5), symptom=(0.4, 0.7), seed_rules=(0.05, 0.2)),
    "rugged": replace(_BASE, prerequisites=(0.3, 0.5), conflicts=(3, 6), harm=(0.02, 0.12), decoy_harm=(0.05, 0.4), blind=(0.3, 0.6)),
    "flat": replace(
        _BASE,
        rules=(3, 5),
        flat=(1, 1),
        conflicts=(0, 0),
        prerequisites=(0.0, 0.0),
        harm=(0.0, 0.02),
        decoy_harm=(0.05, 0.4),
        seed_rules=(1.0, 1.0),
        seed_bad=(0, 0),
        seed_score=(0.35, 0.8),
        decoys=(12, 20),
    ),
    "defective": replace(
        _BASE, seed_bad=(1, 3), seed_bad_harm=(0.8, 1.6), seed_bad_hidden=(1, 1), seed_rules=(0.0, 0.2), seed_score=(0.08, 0.25)
    ),
    "fragile": replace(_BASE, length_cost=(0.6, 1.4), harm=(0.04, 0.15), decoy_harm=(0.05, 0.4), rules=(8, 16)),
    "modules": replace(_BASE, modules=(2, 3), rules=(9, 15), conflicts=(0, 1)),
    "slices": replace(_BASE, partisan=(0.35, 0.6)),
    "biased": replace(_BASE, judge_error=(0.08, 0.2), length_bias=(0.04, 0.15)),
    "exploitable": replace(_BASE, key_gain=(0.2, 0.45), judge_error=(0.02, 0.08)),
}


@dataclass(frozen=True)
class Noise:
    """The student's own randomness: P(success) = floor + (1 - 2 floor) sigmoid(slope margin); none: success = margin > 0."""

    slope: Range
    floor: Range


NOISES: dict[str, Noise | None] = {
    "none": None,
    "light": Noise((4.0, 6.0), (0.0, 0.03)),
    "medium": Noise((2.0, 3.0), (0.03, 0.08)),
    "heavy": Noise((1.1, 1.6), (0.08, 0.14)),
}


class Constants(dict[str, float]):
    """One draw of every range of a family."""

    @classmethod
    def draw(cls, ranges: Ranges, rng: np.random.Generator) -> Constants:
        drawn = cls()
        for f in fields(Ranges):
            low, high = getattr(ranges, f.name)
            whole = isinstance(low, int) and isinstance(high, int)
            drawn[f.name] = float(rng.integers(low, high + 1)) if whole else float(rng.uniform(low, high))
        return drawn

    def whole(self, name: str) -> int:
        return round(self[name])
