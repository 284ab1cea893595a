"""`gepa-atlas check`: what works, what does not and how it is mended, the request that will be sent, and what the run will take."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from gepa_atlas.build import build_experiment, build_reflection, build_student, notes
from gepa_atlas.check.estimate import Estimate, estimate
from gepa_atlas.check.rows import Row, advice, built_rows, static_rows
from gepa_atlas.check.trial import Meter, Trial, TrialPlan, plan_trial, run_trial
from gepa_atlas.check.verdicts import trial_rows
from gepa_atlas.config import Loaded
from gepa_atlas.errors import AgentUnusable, CallError, ConfigError, RunDamaged, UserError
from gepa_atlas.loop import Experiment
from gepa_atlas.ports import Agent, Composed, Previews
from gepa_atlas.report.terminal import clean
from gepa_atlas.secrets import scrub_json
from gepa_atlas.store.exports import write_json
from gepa_atlas.store.run import Run
from gepa_atlas.types import Lesson, Task, digest

_SHOWN = 300  # characters of a text
_FILES = ("run.db", "run.db-wal", "run.db-shm", "config.json", "run.lock")


def check(loaded: Loaded, *, sample: int, fresh: bool, dollars: float | None, seconds: float | None, as_json: bool) -> int:
    """Exit code 0 when nothing is red. The first red row is raised as the error."""
    page = _Page(as_json)
    page.rows(static_rows(loaded))
    meter = Meter()
    try:
        experiment = build_experiment(loaded, on_call=meter.on_call)
    except UserError as error:
        page.rows([Row("configuration", "red", str(error))])
        page.end(False)
        raise
    agent = build_student(loaded)
    page.rows([*advice(agent), *built_rows(loaded, experiment, notes(loaded, experiment.dataset))])
    if sample == 0:
        page.request(_previews(agent, [experiment.protocol.baseline(experiment.dataset.train[0].public())]))
        page.end(page.first_red is None, "no call was made: nothing is known of the agent and of what the run will take")
        return _code(page)
    reflection = build_reflection(loaded, experiment.calls)
    plan = plan_trial(experiment, sample, reflection is not None)
    page.plan(plan, loaded)
    directory = loaded.run_dir / "check"
    if fresh:
        _forget(directory)
    trial = asyncio.run(run_trial(experiment, plan, reflection, meter, directory, dollars=dollars, seconds=seconds))
    page.rows(trial_rows(experiment, trial))
    previews = _previews(agent, trial.tasks)
    page.rows(_placement(previews, composed=isinstance(agent, Composed)))
    page.request(previews)
    page.lesson(trial.lessons[0])
    if trial.lessons[0].failure is None:
        page.estimate(estimate(loaded, experiment, meter, trial))
    _keep(directory, experiment, page)
    page.end(page.first_red is None, note=_spent(meter))
    return _code(page, trial)


def unreadable(error: UserError, *, as_json: bool) -> None:
    """The page of a configuration that cannot even be read; the error itself is the caller's to raise."""
    page = _Page(as_json)
    page.rows([Row("configuration", "red", str(error))])
    page.end(False)


def last_estimate(loaded: Loaded, experiment: Experiment) -> tuple[str, ...]:
    """What the last check of the same configuration said of headroom and of what the run takes; nothing without one."""
    try:
        kept = json.loads((loaded.run_dir / "check" / "check.json").read_text("utf-8"))
        same = kept["of"] == digest(experiment.manifest)
        lines = [str(line) for line in kept["lines"]]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return (f"the last check estimated: {'; '.join(' '.join(line.split()) for line in lines)}",) if same and lines else ()


class _Page:
    """Prints as it goes, or keeps everything for one JSON document."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self.document: dict[str, Any] = {"ok": False, "rows": []}
        self.first_red: Row | None = None
        self.lines: list[str] = []

    def rows(self, rows: list[Row]) -> None:
        for row in rows:
            self.document["rows"].append(row.to_json())
            if row.state == "red" and self.first_red is None:
                self.first_red = row
            self._say(f"{row.state:<7} {row.name:<13} {row.said}" + (f" -> {row.fix}" if row.fix else ""))

    def plan(self, plan: TrialPlan, loaded: Loaded) -> None:
        sentence = plan.sentence(loaded.config.agents.teacher is not None)
        counts = {"runs": plan.runs, "lessons": plan.lessons, "judgments": plan.judgments}
        self.document["plan"] = counts | {"reflection": int(plan.reflection)}
        more = "; --sample 1 makes one lesson, --sample 0 no call at all" if len(plan.examples) > 1 else ""
        self._say(f"        {'calls':<13} {sentence}{more}")

    def request(self, previews: list[dict[str, Any]]) -> None:
        self.document["requests"] = previews
        for what, shown in zip(("first", "with guidance"), previews, strict=False):
            self._say(f"request ({what}): {json.dumps(scrub_json(shown), ensure_ascii=False)}", 4000)

    def lesson(self, lesson: Lesson) -> None:
        self.document["lesson"] = lesson.to_json()
        self._say(f"example {lesson.example.id}: {lesson.example.question[:_SHOWN]!r}")
        for what, attempt, reward in (
            ("without guidance", lesson.baseline, lesson.before),
            ("with the seed prompt", lesson.second, lesson.after),
        ):
            answer = "no answer" if attempt.output is None else repr(attempt.output[:_SHOWN])
            self._say(f"{what}: {answer}  reward {'none' if reward.value is None else format(reward.value, '.3f')}")

    def estimate(self, found: Estimate) -> None:
        self.document["estimate"] = found.to_json()
        self.lines = found.lines()
        self._say("the run will take, at most:")
        for line in self.lines:
            self._say(f"  {line}")

    def end(self, ok: bool, note: str = "") -> None:
        self.document["ok"] = ok
        self.document["note"] = note
        if self._json:
            typer.echo(json.dumps(scrub_json(self.document), indent=2, ensure_ascii=False))
        elif note:
            self._say(note)

    def _say(self, line: str, width: int = 1000) -> None:
        if not self._json:
            indent = line[: len(line) - len(line.lstrip())]
            typer.echo(indent + clean(line, width))


def _previews(agent: Agent, tasks: list[Task]) -> list[dict[str, Any]]:
    """The exact requests of these tasks, where the provider can show them; otherwise what the agent is given."""
    shown = []
    for task in tasks[:2]:
        try:
            shown.append(agent.preview(task) if isinstance(agent, Previews) else {"given": task.to_json()})
        except CallError as error:
            shown.append({"refused": f"{error.kind}: {error}"})
    return shown


def _placement(previews: list[dict[str, Any]], composed: bool = False) -> list[Row]:
    """Whether the request with guidance is another one than that without it."""
    if composed:
        return [Row("guidance", "green", "the agent's own texts are evolved, by name; the seed is the agent as it stands")]
    if len(previews) < 2:
        return []
    if previews[0] == previews[1]:
        return [Row("guidance", "red", "prompts cannot help: the guidance is not in the request", "correct where `guidance` is placed")]
    return [Row("guidance", "green", "it is in the request")]


def _code(page: _Page, trial: Trial | None = None) -> int:
    red = page.first_red
    if red is None:
        return 0
    message = f"{red.said}" + (f"; {red.fix}" if red.fix else "")
    if trial is not None and trial.lessons[0].baseline.error is not None:
        raise AgentUnusable(f"the student gave no usable answer: {message}")
    raise ConfigError(f"check: {red.name}: {message}")


def _spent(meter: Meter) -> str:
    made = ", ".join(f"{n} {role}" for role, n in meter.made.items()) or "none"
    known = sum(meter.known.values())
    paid = meter.paid
    tokens = "unknown tokens" if paid.tokens is None else f"{paid.tokens} tokens"
    dollars = "no known price" if paid.dollars is None else f"${paid.dollars:.4f}"
    more = f"; {known} answers were known from an earlier check (--fresh asks again)" if known else ""
    return f"calls made: {made}; {tokens}, {dollars}{more}"


def _keep(directory: Path, experiment: Experiment, page: _Page) -> None:
    write_json(directory / "check.json", {"of": digest(experiment.manifest), "lines": page.lines, "check": page.document})


def _forget(directory: Path) -> None:
    """Remove the ledger of earlier checks, a damaged one too. Opened first: another check may be under way."""
    if (directory / "run.db").exists():
        with suppress(RunDamaged), Run.open(directory, manifest={"check": "1"}, config={}):
            pass
        for name in _FILES:
            (directory / name).unlink(missing_ok=True)
