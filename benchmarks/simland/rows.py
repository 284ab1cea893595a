"""From runs to the rows of a result file: paired by world, gepa standing for its better configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.optimizers.registry import GEPA_NAMES
from benchmarks.results import Row, rounded
from benchmarks.simland.run import CHECKPOINTS, Run
from benchmarks.stats import mean_interval, ratio_interval, reach

Floats = npt.NDArray[np.float64]
HURT = -0.01  # true score more than one point under the seed
Where = Callable[[Run], bool]


class Sheet:
    """Runs of a set of worlds, one line per (world, seed), the same lines for every optimizer."""

    def __init__(self, runs: Sequence[Run], where: Where) -> None:
        self.by_name: dict[str, list[Run]] = {}
        for r in sorted((r for r in runs if where(r)), key=lambda r: (r.family, r.index, r.seed)):
            self.by_name.setdefault(r.optimizer, []).append(r)

    def gains(self, name: str) -> Floats:
        """Mean over seeds per world: the world is the unit of the bootstrap."""
        cells: dict[tuple[str, int], list[float]] = {}
        for r in self.by_name[name]:
            cells.setdefault((r.family, r.index), []).append(r.gain)
        return np.array([np.mean(v) for v in cells.values()])

    def curve(self, name: str) -> Floats:
        total: Floats = np.array([r.curve for r in self.by_name[name]]).mean(0)
        return total

    def better_gepa(self) -> str | None:
        """gepa's configuration with the higher mean gain on these worlds."""
        there = [n for n in self.by_name if n in GEPA_NAMES or n.startswith("gepa:")]
        return max(there, key=lambda n: float(self.gains(n).mean())) if there else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def row(sheet: Sheet, name: str, family: str, noise: str, budget: int) -> Row:
    runs, gains = sheet.by_name[name], sheet.gains(name)
    marks = np.arange(1, CHECKPOINTS + 1) * budget / CHECKPOINTS
    gain, curve = mean_interval(gains), sheet.curve(name)
    gepa = sheet.better_gepa()
    ratio = ratio_interval(gains, sheet.gains(gepa)) if gepa else None
    difference = mean_interval(gains - sheet.gains(gepa)) if gepa else None
    target = float(sheet.gains(gepa).mean()) if gepa else 0.0
    return {
        "optimizer": name,
        "family": family,
        "noise": noise,
        "budget": budget,
        "worlds": len(gains),
        "true_gain": rounded(gain.value),
        "true_gain_low": rounded(gain.low),
        "true_gain_high": rounded(gain.high),
        "ratio_to_gepa": rounded(ratio.value) if ratio else None,
        "ratio_low": rounded(ratio.low) if ratio else None,
        "ratio_high": rounded(ratio.high) if ratio else None,
        "diff_to_gepa": rounded(difference.value) if difference else None,
        "diff_low": rounded(difference.low) if difference else None,
        "diff_high": rounded(difference.high) if difference else None,
        "gepa_configuration": gepa,
        "hurt_rate": rounded(float(np.mean([r.raw_gain < HURT for r in runs]))),
        "rollouts_to_gepa_gain": rounded(reach(curve, marks, target), 1) if gepa and family != "flat" else None,
        "prompt_tokens": rounded(float(np.mean([r.prompt_tokens for r in runs])), 1),
        "raw_gain": rounded(float(np.mean([r.raw_gain for r in runs]))),
        "judged_excess": rounded(float(np.mean([r.judged_gain - r.raw_gain for r in runs]))),
        "optimism": rounded(_mean([r.optimism for r in runs if r.optimism is not None])),
        "gain_at_25": rounded(float(curve[CHECKPOINTS // 4 - 1])),
        "gain_at_50": rounded(float(curve[CHECKPOINTS // 2 - 1])),
        "calls": rounded(float(np.mean([r.calls for r in runs])), 1),
        "refused": rounded(float(np.mean([r.refused for r in runs])), 1),
        "repeats": rounded(float(np.mean([r.repeats for r in runs])), 1),
        "reflections": rounded(float(np.mean([r.reflections for r in runs])), 1),
        "cpu_seconds": rounded(float(np.mean([r.seconds for r in runs])), 4),
    }


def rows(runs: Sequence[Run], optimizers: Sequence[str], families: Sequence[str], noises: Sequence[str], budget: int) -> list[Row]:
    """Per family, per (family, noise) where several noises ran, and the summaries `all`, `noisy`, `deterministic`.

    Summaries of gains leave the flat family out (it has no headroom to normalise by); their hurt rate is over what they cover.
    """
    out: list[Row] = []

    def add(family: str, noise: str, where: Where) -> None:
        sheet = Sheet(runs, where)
        out.extend(row(sheet, name, family, noise, budget) for name in optimizers if name in sheet.by_name)

    def where(family: str | None, noise: str | None) -> Where:
        return lambda r: (r.family == family if family else r.family != "flat") and (noise is None or r.noise == noise)

    add("all", "mixed", where(None, None))
    add("noisy", "mixed", lambda r: r.family != "flat" and r.noise != "none")
    add("deterministic", "none", where(None, "none"))
    for family in families:
        add(family, "mixed" if len(noises) > 1 else noises[0], where(family, None))
    for noise in noises if len(noises) > 1 else ():
        add("all", noise, where(None, noise))
        for family in families:
            add(family, noise, where(family, noise))
    return out
