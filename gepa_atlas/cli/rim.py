"""`gepa-atlas rim score|bench|calibrate|audit`: the command line of the reward system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gepa_atlas.cli.limits import MaxMinutes, MaxTokens, MaxUsd, limits_of

app = typer.Typer(help="The reward system on its own: score, calibrate, bench, audit.", no_args_is_help=True, rich_markup_mode=None)


@app.callback(help="The reward system on its own: score, calibrate, bench, audit.")
def _environment() -> None:
    """Keys of judges may stand in `.env` of the current directory."""
    from gepa_atlas.dotenv import load_env_files
    from gepa_atlas.secrets import watch_environment

    load_env_files(Path("configs/rim_config.yaml"))
    watch_environment()


_Config = Annotated[Path, typer.Option("--config", "--reward-config", help="Reward configuration (YAML).")]
_MaybeConfig = Annotated[Path | None, typer.Option("--config", help="Reward configuration (YAML): which judges sit on the panel.")]
_Json = Annotated[Path | None, typer.Option("--json", help="Write the result there as JSON.")]


@app.command()
def score(
    prompt: Annotated[str | None, typer.Option(help="The task.")] = None,
    response: Annotated[str | None, typer.Option(help="The answer to be judged.")] = None,
    answer: Annotated[str | None, typer.Option(help="The gold answer, for judges that need one.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="JSON lines with prompt, response and answer instead.")] = None,
    config: _Config = Path("configs/rim_config.yaml"),
    max_usd: MaxUsd = None,
    max_tokens: MaxTokens = None,
    max_minutes: MaxMinutes = None,
    json_out: _Json = None,
) -> None:
    """Judge one interaction, or a file of them. Exit code 1 when any could not be scored."""
    from gepa_atlas.cli import rim_commands as commands

    limits = limits_of(max_usd, max_tokens, max_minutes)
    code = commands.score(prompt, response, config=config, answer=answer, dataset=dataset, json_out=json_out, limits=limits, say=typer.echo)
    raise typer.Exit(code)


@app.command()
def calibrate(
    out: Annotated[Path, typer.Option(help="Where the profile goes.")],
    labels: Annotated[Path | None, typer.Option(help="Labelled outputs (JSON lines).")] = None,
    bank: Annotated[Path | None, typer.Option(help="Recorded judgments of several responses a question, the best one marked.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Recorded pairwise judgments in both orders.")] = None,
    config: _MaybeConfig = None,
    draws: Annotated[int, typer.Option(min=1, help="Times that a model judge of --config judges each row of --labels: its noise.")] = 2,
    max_usd: MaxUsd = None,
    max_tokens: MaxTokens = None,
    max_minutes: MaxMinutes = None,
) -> None:
    """Fit bias, weights, noise and a monotone map by judge; report cross-validated accuracy and calibration error."""
    from gepa_atlas.cli import rim_commands as commands

    limits = limits_of(max_usd, max_tokens, max_minutes)
    code = commands.calibrate(bank=bank, labels=labels, pairs=pairs, config=config, draws=draws, limits=limits, out=out, say=typer.echo)
    raise typer.Exit(code)


@app.command()
def bench(
    bank: Annotated[Path | None, typer.Option(help="Recorded judgments of several responses a question.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Recorded pairwise judgments in both orders.")] = None,
    profile: Annotated[Path | None, typer.Option(help="What `rim calibrate` wrote, from other rows.")] = None,
    config: _MaybeConfig = None,
    max_calls_per_response: Annotated[float | None, typer.Option(min=1, help="Cap on judge calls per response (mean).")] = None,
    json_out: _Json = None,
) -> None:
    """Strict and tie-credited accuracy, calls, escalation AUC and calibration error of the panel, with ATLAS's rule beside it."""
    from gepa_atlas.cli import rim_commands as commands

    code = commands.bench(
        bank=bank,
        pairs=pairs,
        profile=profile,
        config=config,
        max_calls_per_response=max_calls_per_response,
        json_out=json_out,
        say=typer.echo,
    )
    raise typer.Exit(code)


@app.command()
def audit(
    dataset: Annotated[Path, typer.Option(help="JSON lines with question and answer.")],
    config: _Config = Path("configs/rim_config.yaml"),
    wrong: Annotated[str, typer.Option(help="An honest answer that is wrong for every example.")] = "I am not sure.",
    slack: Annotated[float, typer.Option(min=0, max=1, help="What a canary may get above the wrong answer.")] = 0.1,
    limit: Annotated[int, typer.Option(min=1, help="Examples that are tried.")] = 20,
    max_usd: MaxUsd = None,
    max_tokens: MaxTokens = None,
    max_minutes: MaxMinutes = None,
    json_out: _Json = None,
) -> None:
    """Canaries against the panel: empty answers, master keys, pleas for a grade, padding. Exit code 1 when one collects reward."""
    from gepa_atlas.cli import rim_commands as commands

    raise typer.Exit(
        commands.audit(
            config=config,
            dataset=dataset,
            wrong=wrong,
            slack=slack,
            limit=limit,
            json_out=json_out,
            limits=limits_of(max_usd, max_tokens, max_minutes),
            say=typer.echo,
        )
    )
