"""`gepa-atlas traces`: what was taught, across runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gepa_atlas.cli.limits import MaxMinutes, MaxTokens, MaxUsd

_HELP = "Traces of all runs: import, list, show, review, promote, export, stats."
_EPILOG = """
Examples:

  gepa-atlas traces import runs/toyworld

  gepa-atlas traces list --operation toyworld --min-delta 0.5

  gepa-atlas traces review approved --operation toyworld --min-delta 0.5 --note "read them all"

  gepa-atlas traces export good.jsonl --state approved --state golden
"""
app = typer.Typer(help=_HELP, epilog=_EPILOG, no_args_is_help=True, rich_markup_mode=None)


@app.callback(help=_HELP, epilog=_EPILOG)
def environment() -> None:
    """The store's address, and its password, may stand in `.env` of the current directory."""
    from gepa_atlas.dotenv import load_env_files
    from gepa_atlas.secrets import watch_environment

    load_env_files(Path("memory.yaml"))
    watch_environment()


Store = Annotated[
    str | None,
    typer.Option("--memory", metavar="URL", envvar="GEPA_ATLAS_MEMORY", help="An SQLite file or postgresql://...; runs/memory.db if none."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Redact = Annotated[list[str] | None, typer.Option("--redact", metavar="REGEX", help="Cut this out before anything is kept; repeatable.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of traces.", show_default=False)]
Operation = Annotated[str | None, typer.Option("--operation", help="Traces of this operation (the name of a configuration).")]
Run = Annotated[str | None, typer.Option("--run", metavar="ID", help="Traces of the run with this id (`runs list --json`).")]
Kind = Annotated[str | None, typer.Option("--kind", help="lesson, or session (of ATLAS).")]
State = Annotated[list[str] | None, typer.Option("--state", help="pending, approved, quarantined or golden; repeatable.")]
MinReward = Annotated[float | None, typer.Option("--min-reward", help="Reward of the second attempt, at least.")]
MaxReward = Annotated[float | None, typer.Option("--max-reward", help="Reward of the second attempt, at most.")]
MinDelta = Annotated[float | None, typer.Option("--min-delta", help="Reward after less before, at least.")]
MaxDelta = Annotated[float | None, typer.Option("--max-delta", help="Reward after less before, at most.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="From then on: 2026-11-27, 2026-11-27T14:00, or 7d, 12h ago.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Up to this time.")]
Failed = Annotated[bool, typer.Option("--failed", help="Only what could not be scored.")]


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run, or traces: .jsonl (also ATLAS's) or .parquet.")],
    memory: Store = None,
    operation: Annotated[str | None, typer.Option("--operation", help="File the traces under this name.")] = None,
    redact: Redact = None,
    json_: Json = False,
) -> None:
    """Add the traces of a finished run, or of a file. What is there already stays as it is: doing it again changes nothing."""
    from gepa_atlas.cli import traces_commands as commands

    commands.import_(source, memory, operation, tuple(redact or ()), as_json=json_)


@app.command("list")
def list_(
    memory: Store = None,
    operation: Operation = None,
    run: Run = None,
    kind: Kind = None,
    state: State = None,
    min_reward: MinReward = None,
    max_reward: MaxReward = None,
    min_delta: MinDelta = None,
    max_delta: MaxDelta = None,
    since: Since = None,
    until: Until = None,
    failed: Failed = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10**9, help="How many, at most.")] = 20,
    json_: Json = False,
) -> None:
    """List traces, newest first; with a bound on reward or delta, the largest first."""
    from gepa_atlas.cli import traces_commands as commands

    which = commands.which(operation, run, kind, state, (min_reward, max_reward, min_delta, max_delta), (since, until), failed)
    commands.list_(memory, which, limit, as_json=json_)


@app.command("show")
def show(trace: Annotated[str, typer.Argument(metavar="ID")], memory: Store = None, json_: Json = False) -> None:
    """Show one trace: question, attempts, guidance, rewards by judge, reviews."""
    from gepa_atlas.cli import traces_commands as commands

    commands.show(memory, trace, as_json=json_)


@app.command("review")
def review(
    to: Annotated[str, typer.Argument(metavar="STATE", help="approved, quarantined or pending.")],
    ids: Ids = None,
    note: Annotated[str, typer.Option("--note", help="Why; kept with the trace.")] = "",
    memory: Store = None,
    operation: Operation = None,
    run: Run = None,
    kind: Kind = None,
    state: State = None,
    min_reward: MinReward = None,
    max_reward: MaxReward = None,
    min_delta: MinDelta = None,
    max_delta: MaxDelta = None,
    since: Since = None,
    until: Until = None,
    failed: Failed = False,
    json_: Json = False,
) -> None:
    """Set the state of traces: those named, or with filters all pending ones that match. Only approved and golden ones may train."""
    from gepa_atlas.cli import traces_commands as commands

    which = commands.which(operation, run, kind, state, (min_reward, max_reward, min_delta, max_delta), (since, until), failed)
    commands.review(memory, ids or [], which, to, note, as_json=json_)


@app.command("promote")
def promote(
    ids: Ids = None,
    note: Annotated[str, typer.Option("--note", help="Why; kept with the trace.")] = "",
    memory: Store = None,
    max_usd: MaxUsd = None,
    max_tokens: MaxTokens = None,
    max_minutes: MaxMinutes = None,
    json_: Json = False,
) -> int:
    """Make approved lessons golden, if the judges of their run see the gain again. Exit code 3 when they do not for one of them."""
    from gepa_atlas.cli import traces_commands as commands

    return commands.promote(memory, ids or [], note, (max_usd, max_tokens, max_minutes), as_json=json_)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to: .jsonl or .parquet.")],
    memory: Store = None,
    operation: Operation = None,
    run: Run = None,
    kind: Kind = None,
    state: State = None,
    min_reward: MinReward = None,
    max_reward: MaxReward = None,
    min_delta: MinDelta = None,
    max_delta: MaxDelta = None,
    since: Since = None,
    until: Until = None,
    failed: Failed = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, max=10**9, help="How many, at most: the first of `list`.")] = None,
    atlas: Annotated[bool, typer.Option("--atlas", help="Lessons too as session traces of ATLAS's SDK (.jsonl).")] = False,
    json_: Json = False,
) -> None:
    """Write traces to a file, in the order they came in: lessons as in traces.jsonl, sessions of ATLAS as they were."""
    from gepa_atlas.cli import traces_commands as commands

    which = commands.which(operation, run, kind, state, (min_reward, max_reward, min_delta, max_delta), (since, until), failed)
    commands.export(memory, file, which, limit, atlas=atlas, as_json=json_)


@app.command("stats")
def stats(
    memory: Store = None,
    operation: Operation = None,
    window: Annotated[int, typer.Option("--window", min=10, help="Newest points that drift is looked for in.")] = 50,
    json_: Json = False,
) -> None:
    """Count traces by operation, state and judge, and say which operation has drifted."""
    from gepa_atlas.cli import traces_commands as commands

    commands.stats(memory, operation, window, as_json=json_)
