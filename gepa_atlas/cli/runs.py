"""The commands that look at finished and unfinished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, help="Look at runs: list, show, digest, calls; fork.")

REPORT_EPILOG = """
Examples:

  gepa-atlas report toyworld

  gepa-atlas report runs/toyworld --open
"""

EXPORT_EPILOG = """
Examples:

  gepa-atlas export toyworld

  gepa-atlas export toyworld --format dspy --output toyworld.dspy.json

text: the prompt as it is. atlas: ATLAS's six keys. dspy: state of a DSPy program. mlflow: arguments of register_prompt.
promptfoo: a promptfooconfig.yaml. openai: instructions, messages and variables of a stored prompt.
"""

COMPARE_EPILOG = """
Examples:

  gepa-atlas compare toyworld runs/other

  gepa-atlas compare toyworld runs/other --json
"""

WHY_EPILOG = """
Examples:

  gepa-atlas why toyworld tested          (who was sent to the held-out test)

  gepa-atlas why toyworld 7c10 --json     (the beginning of an id is enough)
"""

FORK_EPILOG = """
Examples:

  gepa-atlas runs fork toyworld --at 20

  gepa-atlas runs fork toyworld --at 20 --run-dir runs/longer --set budget.tokens=200000
"""

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or the name of one below runs/.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.command("list")
def list_(
    directory: Annotated[str, typer.Argument(metavar="[DIR]", help="Where the runs are.")] = "runs",
    json_: Json = False,
) -> None:
    """List the runs below DIR with their status."""
    from gepa_atlas.cli import views

    views.show_list(directory, as_json=json_)


@app.command("show")
def show(run: RunArgument, json_: Json = False) -> None:
    """Show the status, result and spending of RUN."""
    from gepa_atlas.cli import views

    views.show_run(run, as_json=json_)


@app.command("digest")
def digest(run: RunArgument) -> None:
    """Print a hash of everything that was decided in RUN: equal for equal runs, free of clock and path."""
    from gepa_atlas.cli import views

    views.print_digest(run)


@app.command("calls")
def calls(run: RunArgument, json_: Json = False) -> None:
    """Print what RUN was charged: rollouts, and calls by role."""
    from gepa_atlas.cli import views

    views.print_calls(run, as_json=json_)


@app.command("fork", epilog=FORK_EPILOG)
def fork(
    run: RunArgument,
    at: Annotated[int, typer.Option("--at", metavar="N", help="The last slot that both runs share.", show_default=False)],
    run_dir: Annotated[Path | None, typer.Option("--run-dir", metavar="NEW", help="Where the fork is kept. Default: RUN-fork-N.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting that decides no slot, such as budget.dollars; repeatable."),
    ] = None,
) -> int:
    """Branch RUN after slot N: the fork replays slots 0 to N from the ledger without a call, and goes on from there by itself."""
    from gepa_atlas.cli import insight

    return insight.fork(run, at, run_dir, set_ or [])


def report(
    run: RunArgument,
    open_: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
) -> None:
    """Write the files of RUN again from its run.db: report.html, report.md, optimized_prompts.json and traces.jsonl. Makes no call."""
    from gepa_atlas.cli.session import export_again
    from gepa_atlas.cli.views import find_run

    page = export_again(find_run(run))
    if open_ and typer.launch(page.absolute().as_uri()) != 0:
        typer.echo(f"no browser could be started; open {page} in one", err=True)


def export(
    run: RunArgument,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="text, atlas, dspy, mlflow, promptfoo or openai.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of printing.")] = None,
) -> None:
    """Print the prompt that RUN says to use, in the form of another tool."""
    from gepa_atlas.cli import insight

    insight.export(run, form, output)


def compare(
    one: Annotated[str, typer.Argument(metavar="RUN_A", help="A finished run.", show_default=False)],
    other: Annotated[str, typer.Argument(metavar="RUN_B", help="Another one.", show_default=False)],
    json_: Json = False,
) -> None:
    """Compare what two runs say to use, paired on the held-out examples that both have, with a 95 % interval."""
    from gepa_atlas.cli import insight

    insight.compare(one, other, as_json=json_)


def why(
    run: RunArgument,
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="Its id, or the beginning of it; seed; tested.", show_default=False)
    ],
    json_: Json = False,
) -> None:
    """Say why CANDIDATE of RUN is as it is: what it changed, the failures behind it, what it fixed and broke, what was decided."""
    from gepa_atlas.cli import insight

    insight.why(run, candidate, as_json=json_)
