"""`gepa-atlas evaluate`: what teaching is worth on one question, or on a file of them. The flags are ATLAS's quickstart's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gepa_atlas.cli.limits import MaxMinutes, MaxTokens, MaxUsd, limits_of

if TYPE_CHECKING:
    from gepa_atlas.cli.paired import Trial
    from gepa_atlas.ports import ChatModel
    from gepa_atlas.rim.config import RimConfig
    from gepa_atlas.types import Attempt, Reward

_RULE = "=" * 72
_REWARDS = Path("configs/rim_config.yaml")


def evaluate(
    question: Annotated[str | None, typer.Option(help="One question.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="JSON lines with question, answer, tags: a paired evaluation.")] = None,
    answer: Annotated[str | None, typer.Option(help="The gold answer of --question, for judges that need one.")] = None,
    teacher_model: Annotated[str, typer.Option(help="local, or vendor/model.")] = "local",
    student_model: Annotated[str, typer.Option(help="local, or vendor/model.")] = "local",
    reward_config: Annotated[
        Path | None, typer.Option(help="Which judges decide. By default configs/rim_config.yaml; without its keys, a program.")
    ] = None,
    teacher_max_output: Annotated[int, typer.Option(min=1)] = 512,
    student_max_output: Annotated[int, typer.Option(min=1)] = 512,
    verbose_judges: Annotated[bool, typer.Option("--verbose-judges", help="Print rationales.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Repeats of every question of --dataset.")] = 1,
    control: Annotated[bool, typer.Option(help="Also let the student try again without a teacher.")] = True,
    max_usd: MaxUsd = None,
    max_tokens: MaxTokens = None,
    max_minutes: MaxMinutes = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write every figure there.")] = None,
) -> None:
    """What teaching is worth: the student alone, then with a teacher's guidance, judged blind by the same panel."""
    import asyncio

    from gepa_atlas.calls import Calls, MemoryTape
    from gepa_atlas.cli.paired import evaluate as run
    from gepa_atlas.cli.paired import load_questions, results
    from gepa_atlas.cli.rim_commands import writable, write_json
    from gepa_atlas.connectors.chat import ChatAgent, ChatParams
    from gepa_atlas.errors import ConfigError
    from gepa_atlas.protocols.lesson import Lesson, LessonOptions
    from gepa_atlas.rim.panel import build_panel
    from gepa_atlas.rim.reward import default_model
    from gepa_atlas.types import Candidate, Example

    if (question is None) == (dataset is None):
        raise ConfigError("evaluate takes --question TEXT or --dataset FILE; give one of the two")
    writable(json_out)
    one = dataset is None
    examples = load_questions(dataset) if dataset else [Example("question", question or "", (answer,) if answer is not None else ())]
    config = _judges(reward_config, gold=answer is not None or not one)
    calls = Calls(MemoryTape(), concurrency=config.concurrency, limits=limits_of(max_usd, max_tokens, max_minutes))
    model = calls.model
    panel = build_panel(
        config, model=lambda spec: model(default_model(spec), "judge"), base_dir=(reward_config or _REWARDS).resolve().parent
    )
    panel.check(examples)
    chat = ChatParams(model=student_model, max_tokens=student_max_output, temperature=0.0, guidance="prefix")
    student = calls.agent(ChatAgent(_model(student_model, "--student-model"), chat))
    protocol = Lesson(model(_model(teacher_model, "--teacher-model"), "teacher"), LessonOptions(max_tokens=teacher_max_output))
    seed, repeats, retry = Candidate.of(protocol.seed_texts()), 1 if one else samples, control and not one
    trials = asyncio.run(run(student, protocol, seed, panel, examples, samples=repeats, control=retry))
    page = results(trials)
    for line in _block(trials[0], verbose_judges) if one else _page(page):
        typer.echo(line)
    if json_out is not None:
        write_json(json_out, page)
    raise typer.Exit(0 if page["scored"] else 1)


def _judges(reward_config: Path | None, *, gold: bool) -> RimConfig:
    """Which judges decide; without a file and without keys a program, which needs gold answers."""
    from gepa_atlas.dotenv import load_env_files
    from gepa_atlas.errors import ConfigError
    from gepa_atlas.rim.keyless import default_rewards
    from gepa_atlas.rim.reward import read_rim
    from gepa_atlas.secrets import watch_environment

    load_env_files(reward_config or _REWARDS)
    watch_environment()
    config, note = (read_rim(reward_config), "") if reward_config else default_rewards(_REWARDS, read_rim)
    if note:
        typer.echo(f"note: {note}", err=True)
        if not gold:
            raise ConfigError(
                "evaluate: a program needs the gold answer; give it with --answer, or name a model that judges with --reward-config"
            )
    return config


def _model(name: str, flag: str) -> ChatModel:
    """The model that `flag` names. Raises ConfigError when its key is not there: without one a call is tried for minutes."""
    from gepa_atlas.errors import ConfigError
    from gepa_atlas.llm.registry import build_model
    from gepa_atlas.rim.keyless import lacking_key

    if (key := lacking_key(name)) is not None:
        raise ConfigError(f"{flag}: {name} reads its key from {key}, which is not set: export it, put it in .env, or take another model")
    return build_model(name, flag)


def _block(trial: Trial, verbose: bool) -> list[str]:
    """ATLAS's quickstart block."""
    before, after = trial.before.reward, trial.after.reward
    lines = [_RULE, "Baseline student answer:", _said(trial.before.attempt), _RULE, "Teacher guidance:", trial.guidance or "(none)"]
    lines += [_RULE, "Student with teaching:", _said(trial.after.attempt), _RULE]
    for label, reward in (("baseline", before), ("with teaching", after)):
        lines.append(f"Reward ({label}): {_number(reward.value)}" + (f" ({reward.missing.reason})" if reward.missing else ""))
        lines.append(f"Per-judge ({label}): {_per_judge(reward)}")
        if verbose:
            lines += [f"  {part.judge}: {part.missing.reason if part.missing else part.rationale}" for part in reward.parts]
    gain = after.value - before.value if after.value is not None and before.value is not None else None
    return [*lines, f"Delta: {'none' if gain is None else format(gain, '+.3f')}"]


def _said(attempt: Attempt) -> str:
    return attempt.output if attempt.output is not None else f"(no answer: {attempt.error.reason if attempt.error else 'unknown'})"


def _per_judge(reward: Reward) -> dict[str, float | None]:
    return {part.judge: None if part.value is None else round(part.value, 3) for part in reward.parts}


def _number(value: float | None, form: str = ".3f") -> str:
    return "none" if value is None else format(value, form)


def _page(page: dict[str, Any]) -> list[str]:
    lines = [f"{page['examples']} examples, {page['trials']} trials, {page['scored']} scored on both sides"]
    if page["unscored"]:
        lines.append("unscored: " + ", ".join(f"{kind} {count}" for kind, count in page["unscored"].items()))
    completed = page["completion_rate"]
    lines.append(f"completion rate        {completed['before']:.1%} -> {completed['after']:.1%}")
    if not page["scored"]:
        return [*lines, "nothing can be said: no trial was scored on both sides"]
    for name in ("accuracy", "reward"):
        row = page[name]
        lines.append(f"average {name:<14} {row['before']:.3f} -> {row['after']:.3f} ({row['change']:+.3f})")
    between = page["gain_interval"]
    shown = f" [{between[0]:+.3f}, {between[1]:+.3f}] by example" if between else " (too few examples for an interval)"
    lines.append(f"gain                   {page['gain']:+.3f}{shown}, sign-flip p = {page['p_value']:.4f}")
    lines.append(f"maximum improvement    {page['maximum_improvement']:+.3f}")
    lines.append(f"non-degradation rate   {page['non_degradation_rate']:.1%}, at least {page['non_degradation_low']:.1%} (95 %, one side)")
    for name in ("tokens", "seconds"):
        row = page[name]
        change = "" if row["change"] is None else f" ({row['change']:+.1%})"
        lines.append(f"{name} per answer".ljust(23) + f"{_number(row['before'], '.2f')} -> {_number(row['after'], '.2f')}{change}")
    lines.append(f"teaching tokens        {_number(page['teaching_tokens'], '.1f')}")
    lines.append(f"teaching efficiency    {_number(page['teaching_efficiency'])} (accuracy gain x completion / thousand teaching tokens)")
    refine = page["self_refine"]
    if refine:
        between = refine["interval"]
        shown = f" [{between[0]:+.3f}, {between[1]:+.3f}]" if between else ""
        lines.append(
            f"second try, no teacher {refine['gain_of_a_second_try']:+.3f}; teaching beyond it {refine['gain_beyond_it']:+.3f}{shown}"
        )
    for tag, row in page["by_tag"].items():
        lines.append(f"  {tag}: {row['trials']} trials, reward {row['reward']['before']:.3f} -> {row['reward']['after']:.3f}")
    if page["folds"]:
        lines.append("gain in five folds     " + ", ".join(f"{value:+.3f}" for value in page["folds"]))
    lines.append("learning curve         " + ", ".join(f"{int(n)}: {value:+.3f}" for n, value in page["learning_curve"]))
    return lines
