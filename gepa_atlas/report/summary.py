"""The verdict in one sentence, and the closing lines of a run."""

from __future__ import annotations

from collections.abc import Mapping

from gepa_atlas.report.record import RunRecord
from gepa_atlas.rim.audit import Watched
from gepa_atlas.types import Ruling, Usage


def sentence(record: RunRecord) -> str:
    """One sentence: the ruling, the means of seed and winner on held-out examples, the paired gain with its interval."""
    verdict = record.verdict
    if record.challenger.id == record.seed.id:
        known = f" (mean reward {verdict.seed.after:.3f} on held-out examples)" if verdict.seed and verdict.seed.after is not None else ""
        return f"Keep the seed{known}: {_why(record)}."
    if verdict.ruling is Ruling.SHIP:
        return f"Ship the evolved prompt: {_means(record)}."
    if verdict.gain is None:
        return f"Inconclusive, the seed is returned: {_why(record)}."
    word = "Do not ship" if verdict.ruling is Ruling.DO_NOT_SHIP else "Inconclusive"
    doubt = "the evolved prompt is not better than the seed" if verdict.ruling is Ruling.DO_NOT_SHIP else _doubt(record)
    return f"{word}, the seed is returned: {_means(record)}, so {doubt}."


def closing(record: RunRecord, files: Mapping[str, str]) -> list[str]:
    """The last lines a user reads: files by what they hold, verdict, gain, what it took, why it stopped, what cannot be claimed."""
    lines = [sentence(record)]
    gain = gain_text(record)
    if gain:
        lines.append(f"Gain: {gain}")
    limit = f" of {record.rollout_limit}" if record.rollout_limit is not None else ""
    lines.append(f"Rollouts: {record.rollouts}{limit}")
    lines += [f"Spend, {role}: {spend_text(usage)}" for role, usage in sorted(record.spend.items())]
    if len(record.judging) > 1:
        lines += [f"Spend, judge {name}: {spend_text(usage)}" for name, usage in sorted(record.judging.items())]
    if record.watch:
        lines += _watch_lines(record.watch)
    if record.stop_reason:
        lines.append(f"Stopped: {record.stop_reason}")
    lines += [f"Not claimed: {note}" for note in record.notes]
    return lines + [f"{what}: {path}" for what, path in files.items()]


def claims(record: RunRecord) -> list[str]:
    """What cannot be claimed, in sentences: what the run was told of its data, and what its figures leave open."""
    verdict = record.verdict
    found = [f"{note[:1].upper()}{note[1:]}." for note in (n.rstrip(".") for n in record.notes) if note]
    if verdict.winner is None or verdict.winner.after is None:
        found.append("There is no held-out result: nothing is known of how the prompt does on examples that the search did not use.")
    elif record.challenger.id == record.seed.id:
        found.append("No gain was put to the held-out test: the search found nothing to send there beside the seed prompt.")
    elif verdict.gain_low is not None and verdict.gain_high is not None and verdict.gain_low <= 0.0 <= verdict.gain_high:
        found.append("The interval of the gain holds zero: that there is a gain at all cannot be claimed.")
    if verdict.winner is not None and 0 < verdict.winner.scored < verdict.winner.planned:
        missing = verdict.winner.planned - verdict.winner.scored
        found.append(f"{missing} of {verdict.winner.planned} held-out examples could not be scored; the figures are over the others.")
    if gain_text(record) and verdict.judge_error is None:
        found.append("How much of the interval is the judges' own noise is not known.")
    found.append("Figures of the search (select) split chose the prompt, so they flatter it: they are not performance.")
    return found


def _watch_lines(watch: Watched) -> list[str]:
    """What the watching judge saw beside the panel; a gap says how much of a gain it did not see."""
    lines = []
    for where, seen in (("search", watch.search), ("held-out test", watch.test)):
        if seen is not None:
            judged, own, count = seen
            lines.append(
                f"Watch, {where}: gain {judged:+.3f} by the panel, {own:+.3f} by {watch.judge} (gap {judged - own:+.3f}, {count} lessons)"
            )
    return lines or [f"Watch: {watch.judge} scored no lesson on both sides"]


def gain_text(record: RunRecord) -> str:
    """`+0.812, 95 % interval [+0.690, +0.901], 48 pairs`; empty when the challenger was not compared with the seed."""
    verdict = record.verdict
    if verdict.gain is None or record.challenger.id == record.seed.id:
        return ""
    interval = ""
    if verdict.gain_low is not None and verdict.gain_high is not None:
        interval = f", 95 % interval [{verdict.gain_low:+.3f}, {verdict.gain_high:+.3f}]"
    return f"{verdict.gain:+.3f}{interval}, {verdict.pairs} held-out examples"


def spend_text(usage: Usage) -> str:
    """Calls, tokens, dollars and seconds; what is unknown is called unknown."""
    tokens = "unknown tokens" if usage.tokens is None else f"{usage.tokens} tokens"
    dollars = "unknown price" if usage.dollars is None else "no price" if usage.dollars == 0 else f"${usage.dollars:.4f}"
    return f"{usage.calls} calls, {tokens}, {dollars}, {usage.seconds:.1f} s of answering"


def _means(record: RunRecord) -> str:
    verdict = record.verdict
    seed = verdict.seed.after if verdict.seed else None
    winner = verdict.winner.after if verdict.winner else None
    if seed is None or winner is None:
        return f"gain {gain_text(record)}"
    return f"mean reward {seed:.3f} -> {winner:.3f} on held-out examples (gain {gain_text(record)})"


def _why(record: RunRecord) -> str:
    return "; ".join(record.verdict.reasons) or "no reason was given"


def _doubt(record: RunRecord) -> str:
    low, high = record.verdict.gain_low, record.verdict.gain_high
    if low is not None and high is not None and low <= 0.0 <= high:
        return "the gain may be chance"
    return _why(record)
