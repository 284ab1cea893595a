"""Do no harm is code: the winner ships only if, on examples no part of the search has seen, it is surely better than the seed."""

from __future__ import annotations

from collections.abc import Sequence

from gepa_atlas.evolve.stats import Z95, by_example, judging_error, paired_gain, scorecard
from gepa_atlas.types import Candidate, Lesson, Ruling, Verdict

MIN_COVERAGE = 0.8


def rule(seed: Candidate, winner: Candidate, lessons: Sequence[Lesson], planned: int, no_test: str = "", margin: float = 0.0) -> Verdict:
    """The verdict from lessons of seed and winner on the test split; `planned` is the number of test examples."""
    if no_test:
        return Verdict(Ruling.INCONCLUSIVE, (no_test,), None, None)
    seed_lessons = [lesson for lesson in lessons if lesson.candidate_id == seed.id]
    winner_lessons = [lesson for lesson in lessons if lesson.candidate_id == winner.id]
    seed_card, winner_card = scorecard(seed.id, seed_lessons, planned), scorecard(winner.id, winner_lessons, planned)
    if winner.id == seed.id:
        return Verdict(
            Ruling.DO_NOT_SHIP, ("no candidate was better than the seed on the val split",), seed_card, seed_card, 0.0, 0.0, 0.0, planned
        )
    gain, low, high, pairs = paired_gain(by_example(winner_lessons), by_example(seed_lessons))
    error = judging_error(winner_lessons, seed_lessons)
    if error and low is not None and high is not None:  # no interval is narrower than what judging alone makes of it
        low, high = max(-1.0, min(low, gain - Z95 * error)), min(1.0, max(high, gain + Z95 * error))
    ruling, reasons = _decide(gain, low, high, pairs, planned, margin, error)
    return Verdict(ruling, reasons, seed_card, winner_card, gain if pairs else None, low, high, pairs, error)


def _decide(
    gain: float, low: float | None, high: float | None, pairs: int, planned: int, margin: float, error: float | None
) -> tuple[Ruling, tuple[str, ...]]:
    if pairs < MIN_COVERAGE * planned:
        return Ruling.INCONCLUSIVE, (f"only {pairs} of {planned} test examples were scored for both seed and winner",)
    if low is None or high is None:
        return Ruling.INCONCLUSIVE, (f"{pairs} test examples are too few for an interval",)
    figure = f"paired gain {gain:+.3f}, 95 % interval [{low:+.3f}, {high:+.3f}] on {pairs} untouched examples{_judging(error)}"
    if low > margin:
        return Ruling.SHIP, (figure,)
    if high < margin or gain <= margin:
        return Ruling.DO_NOT_SHIP, (figure, "the winner is not better than the seed, so the seed is returned")
    return Ruling.INCONCLUSIVE, (figure, "the interval holds zero, so the seed is returned")


def _judging(error: float | None) -> str:
    """What of the interval is the judges' own; nothing where programs judge."""
    if error is None:
        return "; how much of it is the judges' own noise is not known"
    return f"; judging alone makes ±{Z95 * error:.3f} of it" if error else ""
