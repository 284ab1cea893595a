"""What an optimizer may read of a rollout: the question, the reply, and feedback with at most one symptom."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.simland.hashing import uniforms
from benchmarks.simland.world import SLICES, World

GENERIC = "The reply was not accepted."
ACCEPTED = "The reply was accepted."


def question(world: World, row: int) -> str:
    """The text of an example. It names every condition that is there, needed or not."""
    there = np.flatnonzero(world.need[row] | world.clash[row])
    names = [world.grammar.items[int(k)].condition for k in there]
    where = f" It comes from the {SLICES[world.slice[row]]} office." if world.constants["partisan"] else ""
    kinds = f"with a {' and a '.join(names)}" if names else "with nothing out of the ordinary"
    return f"{world.grammar.noun.capitalize()} {1000 + row}: a {world.grammar.noun} {kinds}.{where}"


def feedback(world: World, candidate: Mapping[str, str], row: int, ordinal: int, judged: float) -> str:
    """One line (per module at most one symptom in all). With probability u it misleads, with v it shows a real fault."""
    if judged >= 1.0:
        return ACCEPTED
    f, c, items = world.features(candidate), world.constants, world.grammar.items
    when = 0 if world.noise == "none" else ordinal
    at, no = np.array([row]), np.array([when])
    u = [float(uniforms(f.key ^ world.key, at, no, stream)[0]) for stream in (3, 4, 5, 6)]
    if u[0] < c["misleading"]:
        i = int(u[2] * (world.n_rules + c.whole("decoys")))
        return f"{world.grammar.missing(items[i].condition, u[3], items[i].module)} {GENERIC}"
    if u[1] >= c["symptom"]:
        return GENERIC
    lacking = world.gained[row] * (1.0 - f.eff)
    lacking[lacking < 0.15 * world.gained[row]] = 0.0
    harming = world.harm[row] * f.present * world.shown
    total = lacking.sum() + harming.sum()
    if total <= 0.05:
        return GENERIC
    mark = u[2] * total
    if mark < lacking.sum():
        k = int(np.searchsorted(np.cumsum(lacking), mark, side="right"))
        pre = int(world.prerequisite[k])
        if f.eff[k] > 0 and pre >= 0 and f.eff[pre] == 0 and u[3] < 0.5:
            k = pre  # the rule is there and its prerequisite is not: half of the time the trace says so
        return f"{world.grammar.missing(items[k].condition, u[3], items[k].module)} {GENERIC}"
    j = int(np.searchsorted(np.cumsum(harming), mark - lacking.sum(), side="right"))
    return f"{world.grammar.overdone(items[j].action, u[3], items[j].module)} {GENERIC}"


def reply(world: World, row: int, success: bool) -> str:
    """The student's answer: a line that says nothing an optimizer could copy."""
    done = "handled in full" if success else "handled in part"
    return f"{world.grammar.noun.capitalize()} {1000 + row}: {done}."
