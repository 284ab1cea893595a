"""The commands that look at finished and unfinished runs."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, help="Look at runs: list, show, digest, calls.")

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
