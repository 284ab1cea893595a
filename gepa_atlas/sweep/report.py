"""A sweep as text: the plain table (equal for equal sweeps), report.md and report.html, and rows for benchmarks/results."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gepa_atlas.store.exports import atomic_write
from gepa_atlas.sweep.cell import Row
from gepa_atlas.sweep.figures import Interval, Standing, TrialRecord, board, effects, elsewhere, interactions, shown
from gepa_atlas.sweep.study import cells_of, current, origin, reading, state_of

if TYPE_CHECKING:
    from optuna import Study

_TABLE = ("gain", "low", "high", "score", "harm", "rollouts", "digest")
_UNITS = {"gain": "", "score": "", "harm": "", "cost": " $", "time": " s", "tokens": "", "rollouts": ""}
_STATES = ("waiting", "running", "complete", "pruned", "failed")


@dataclass(frozen=True)
class Findings:
    """Everything the outputs show."""

    name: str
    objectives: list[str]
    trials: list[TrialRecord]
    board: list[Standing]
    importance: dict[str, float] | None  # share of the variance of the first objective that a setting explains; None: unknown
    elsewhere: float | None

    @property
    def counts(self) -> dict[str, int]:
        found = dict.fromkeys(_STATES, 0)
        for trial in self.trials:
            found[trial.state] += 1
        return found


def read_findings(folder: Path) -> Findings:
    """What the sweep in this folder has found so far. Raises ConfigError where there is none."""
    with reading(folder) as study:
        objectives = list(study.user_attrs.get("objectives", ["gain"]))
        trials = _trials(study)
        found = board(trials, objectives)
        return Findings(study.study_name, objectives, trials, found, _importance(study, trials), elsewhere(trials, objectives[0]))


def _trials(study: Study) -> list[TrialRecord]:
    """In the order they were asked for."""
    found = ((t, cells_of(t.user_attrs)) for t in current(study.get_trials(deepcopy=False)))
    return [TrialRecord(origin(t), dict(t.params), state_of(t), rows) for t, rows in found]


def _importance(study: Study, trials: Sequence[TrialRecord]) -> dict[str, float] | None:
    """Functional ANOVA by optuna; it needs scikit-learn and some finished trials."""
    import optuna

    if sum(t.state == "complete" for t in trials) < 4 or len(next((t.settings for t in trials if t.settings), {})) < 2:
        return None
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    first = study.user_attrs.get("objectives", ["gain"])
    try:
        found = optuna.importance.get_param_importances(
            study, evaluator=evaluator, target=(lambda t: t.values[0]) if len(first) > 1 else None
        )
    except (ImportError, RuntimeError, ValueError):  # no scikit-learn; no variance to explain
        return None
    return {name: float(value) for name, value in found.items() if not math.isnan(value)}


# -- texts ------------------------------------------------------------------------------------------------------------


def table(findings: Findings) -> str:
    """A line a cell, tab-separated, free of clock and machine: two equal sweeps have equal tables."""
    names = list(next((t.settings for t in findings.trials if t.settings), {}))
    lines = ["\t".join(map(_on_one_line, ["trial", "state", *names, "suite", "seed", *_TABLE, "error"]))]
    for trial in findings.trials:
        for row in sorted(trial.rows.values(), key=lambda r: (r["suite"], r["seed"])):
            figures = [_plain(row.get(name)) for name in _TABLE]
            settings = [shown(trial.settings[name]) for name in names]
            cells = [str(trial.number), trial.state, *settings, row["suite"], str(row["seed"]), *figures, row["error"] or ""]
            lines.append("\t".join(map(_on_one_line, cells)))
    return "\n".join(lines) + "\n"


def _on_one_line(text: str) -> str:
    """A text of several lines, or with tabs, as its JSON: settings may be prompts."""
    return json.dumps(text) if any(c in text for c in "\t\n\r") or len(text.splitlines()) > 1 else text


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)[:12]


def span(found: Interval, unit: str = "") -> str:
    """0.512 [0.401, 0.611]"""
    if found.low is None or found.high is None:
        return f"{_short(found.mean)}{unit} (one cell: no interval)"
    return f"{_short(found.mean)}{unit} [{_short(found.low)}, {_short(found.high)}]"


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def behind(standing: Standing) -> str:
    """How far this one is behind the best, and whether that is more than luck."""
    gap = standing.behind
    if gap is None:
        return "best"
    sure = gap.low is not None and gap.high is not None and (gap.low > 0 or gap.high < 0)
    return span(gap) + ("" if sure else ", not told apart")


def best_lines(findings: Findings) -> list[str]:
    """What to use, and how sure that is."""
    if not findings.board:
        return ["no combination of settings is finished yet"]
    lines = []
    for one in [s for s in findings.board if s.front] if len(findings.objectives) > 1 else findings.board[:1]:
        figures = "; ".join(f"{name} {span(one.objectives[name], _UNITS[name])}" for name in findings.objectives)
        lines += [
            f"trial {one.trial.number}: {figures}",
            *(f"  {name} = {_on_one_line(shown(value))}" for name, value in one.trial.settings.items()),
        ]
    near = [s for s in findings.board[1:] if s.behind and s.behind.low is not None and s.behind.low <= 0]
    if near and len(findings.objectives) == 1:
        lines.append(f"{len(near)} of {len(findings.board) - 1} others cannot be told apart from it")
    if findings.elsewhere is not None:
        lines.append(
            f"Chosen as the best of {len(findings.board)} on the examples it is scored on, so its mean is optimistic: "
            f"the same choice made on half of the examples gains {findings.elsewhere:.3f} on the other half"
        )
    return lines


def sections(findings: Findings) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows) of the report's tables."""
    names = list(findings.board[0].trial.settings) if findings.board else []
    found = [
        (
            "Board",
            ["#", *names, *findings.objectives, "behind the best", *(["on the front"] if len(findings.objectives) > 1 else [])],
            [
                [
                    str(place),
                    *(shown(s.trial.settings[n]) for n in names),
                    *(span(s.objectives[o], _UNITS[o]) for o in findings.objectives),
                    behind(s),
                    *(["yes" if s.front else ""] if len(findings.objectives) > 1 else []),
                ]
                for place, s in enumerate(findings.board, 1)
            ],
        )
    ]
    first = findings.objectives[0]
    share = findings.importance or {}
    rows = [
        [name, f"{share[name]:.2f}" if name in share else "unknown", label, span(mean), str(n)]
        for name, values in effects(findings.trials, first).items()
        for label, mean, n in values
    ]
    found.append((f"What each setting is worth ({first})", ["setting", "importance", "value", f"mean {first}", "trials"], rows))
    for size, one, two, means in interactions(findings.trials, first)[:3]:
        columns = list(dict.fromkeys(b for _, b in means))
        body = [[a, *(f"{means[a, b]:.3f}" for b in columns)] for a in dict.fromkeys(a for a, _ in means)]
        found.append((f"{one} and {two} together (interaction {size:.3f})", [f"{one} \\ {two}", *columns], body))
    found.append(("What it took", ["", "value"], _spending(findings.trials)))
    failed = [[str(t.number), error] for t in findings.trials for error in t.errors]
    if failed:
        found.append(("Cells that failed", ["trial", "why"], failed))
    return found


def _spending(trials: Sequence[TrialRecord]) -> list[list[str]]:
    cells: list[Row] = [row for t in trials for row in t.rows.values()]

    def total(name: str, unit: str = "") -> str:
        known = [row[name] for row in cells if row.get(name) is not None]
        unknown = f", unknown for {len(cells) - len(known)} cells" if len(known) < len(cells) else ""
        return f"{math.fsum(known):,.6g}{unit}{unknown}"

    return [
        ["cells", str(len(cells))],
        ["rollouts", total("rollouts")],
        ["tokens", total("tokens")],
        ["cost", total("cost", " $")],
        ["seconds of work", total("time", " s")],
    ]


def summary(findings: Findings) -> str:
    counts = ", ".join(f"{n} {state}" for state, n in findings.counts.items() if n)
    return f"{len(findings.trials)} combinations: {counts or 'none'}"


def failure(findings: Findings) -> str | None:
    """One line where cells failed and no combination is finished, so that the sweep says nothing about any; else None."""
    errors = [error for t in findings.trials for error in t.errors]
    if findings.board or not errors:
        return None
    cells = sum(len(t.rows) for t in findings.trials)
    return (
        f"sweep {findings.name}: {len(errors)} of {cells} cells failed and no combination is finished; the first: {errors[0]:.300}; "
        "mend that, and run the same command with --resume --retry-failed"
    )


def markdown(findings: Findings) -> str:
    lines = [f"# Sweep {findings.name}", "", summary(findings) + ".", "", *(f"{line}  " for line in best_lines(findings)), ""]
    for title, header, rows in sections(findings):
        lines += [f"## {title}", "", _line(header), _line(["---"] * len(header)), *(_line(row) for row in rows), ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def html(findings: Findings) -> str:
    """One page, without script and without network."""
    import importlib.resources

    from jinja2 import Environment

    template = importlib.resources.files("gepa_atlas.sweep").joinpath("report.html").read_text("utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return page.render(
        name=findings.name, summary=summary(findings), best=best_lines(findings), sections=sections(findings), bars=_bars(findings)
    )


def _bars(findings: Findings) -> list[dict[str, Any]]:
    """The board's intervals as places on an axis, in percent: (label, low, mean, high)."""
    first = findings.objectives[0]
    spans = [(s, s.objectives[first]) for s in findings.board[:40]]
    edges = [v for _, i in spans for v in (i.low, i.high, i.mean, 0.0) if v is not None]
    low, width = min(edges, default=0.0), (max(edges, default=1.0) - min(edges, default=0.0)) or 1.0

    def at(value: float | None, mean: float) -> float:
        return round(100 * ((mean if value is None else value) - low) / width, 2)

    return [
        {
            "label": ", ".join(f"{k}={shown(v)}" for k, v in s.trial.settings.items()) or "seed settings",
            "low": at(i.low, i.mean),
            "mean": at(i.mean, i.mean),
            "high": at(i.high, i.mean),
            "zero": at(0.0, 0.0),
            "said": span(i, _UNITS[first]),
        }
        for s, i in spans
    ]


def write_report(folder: Path, findings: Findings) -> dict[str, Path]:
    """Write report.md, report.html and table.tsv; returns them by what they hold."""
    files = {"Report": folder / "report.html", "Text": folder / "report.md", "Table": folder / "table.tsv"}
    for path, text in zip(files.values(), (html(findings), markdown(findings), table(findings)), strict=True):
        atomic_write(path, text)
    return files


def result_rows(findings: Findings) -> list[dict[str, Any]]:
    """Flat rows, as the files of benchmarks/results hold them. How far one is behind the best is in the row of the first objective."""
    return [
        {
            "sweep": findings.name,
            "settings": ", ".join(f"{k}={shown(v)}" for k, v in s.trial.settings.items()),
            "objective": name,
            "cells": len(s.trial.rows),
            "mean": s.objectives[name].mean,
            "low": s.objectives[name].low,
            "high": s.objectives[name].high,
            "behind": (s.behind.mean if s.behind else 0.0) if name == findings.objectives[0] else None,
            "behind_low": s.behind.low if s.behind and name == findings.objectives[0] else None,
            "behind_high": s.behind.high if s.behind and name == findings.objectives[0] else None,
        }
        for s in findings.board
        for name in findings.objectives
    ]


def as_json(findings: Findings) -> str:
    document = {
        "sweep": findings.name,
        "counts": findings.counts,
        "best": best_settings(findings),
        "front": [dict(s.trial.settings) for s in findings.board if s.front],
        "rows": result_rows(findings),
    }
    return json.dumps(document, indent=2)


def best_settings(findings: Findings) -> dict[str, Any] | None:
    """Of a sweep with one objective; with several there is a front."""
    return dict(findings.board[0].trial.settings) if findings.board and len(findings.objectives) == 1 else None
