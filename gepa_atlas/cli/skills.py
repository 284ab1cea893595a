"""`gepa-atlas skills`: guidance items that were tried, and what each was worth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from gepa_atlas.cli.traces import Json, Store, environment

if TYPE_CHECKING:
    from gepa_atlas.memory.skills import Skill
    from gepa_atlas.memory.store import Memory

_HELP = "Guidance items, with what each was worth: list, search, show."
_EPILOG = """
Examples:

  gepa-atlas skills list --operation toyworld

  gepa-atlas skills search "order number"

An effect is the reward with the item less the reward without it, on the same examples, with its 95 % interval.
"""
app = typer.Typer(help=_HELP, epilog=_EPILOG, no_args_is_help=True, rich_markup_mode=None)
Operation = Annotated[str | None, typer.Option("--operation", help="What was found in this operation (the name of a configuration).")]


app.callback(help=_HELP, epilog=_EPILOG)(environment)


@app.command("list")
def list_(
    memory: Store = None,
    operation: Operation = None,
    all_: Annotated[bool, typer.Option("--all", help="Also items of which nothing is sure.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10**9, help="How many, at most.")] = 20,
    json_: Json = False,
) -> None:
    """List verified items, the surest first, and harmful ones."""
    from gepa_atlas.memory import skills

    with _opened(memory) as store:
        found = skills.library(store, operation)
    sure = [skill for skill in found if all_ or skill.finding != "unclear"][:limit]
    tried = f"nothing is sure of {len(found)} items that were tried; --all shows them"
    _print(sure, tried if found else "no item was tried yet; `gepa-atlas traces import RUN` adds those of a run", as_json=json_)


@app.command("search")
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words that an item should have.")],
    memory: Store = None,
    operation: Operation = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10**9, help="How many, at most.")] = 20,
    json_: Json = False,
) -> None:
    """Find items by their words, the best match first."""
    from gepa_atlas.memory import skills

    with _opened(memory) as store:
        found = skills.search(skills.library(store, operation), text)[:limit]
    _print(found, "no item has one of these words", as_json=json_)


@app.command("show")
def show(item: Annotated[str, typer.Argument(metavar="ID")], memory: Store = None, json_: Json = False) -> None:
    """Show an item in each operation: its effect, and the examples it hurt and helped most."""
    from gepa_atlas.memory import skills

    with _opened(memory) as store:
        found = skills.named(skills.library(store), item)
    _print(found, "", as_json=json_)
    for skill in () if json_ else found:
        typer.echo(f"\n{skill.text}\n")
        for word, pairs in (("hurt", skill.by_example), ("helped", skill.by_example[::-1])):
            for example, difference in pairs[:5]:
                if difference and (difference > 0) == (word == "helped"):
                    typer.echo(f"  {word:7} {difference:+.3f}  {example}")


def _opened(url: str | None) -> Memory:
    from gepa_atlas.memory.config import default_url
    from gepa_atlas.memory.store import Memory

    return Memory.open(url or default_url(), create=False)


def _print(found: list[Skill], nothing: str, *, as_json: bool) -> None:
    from gepa_atlas.cli.traces_commands import one_line

    if as_json:
        typer.echo(json.dumps([skill.to_json() for skill in found], indent=2))
        return
    if not found:
        typer.echo(nothing)
    for k in found:
        typer.echo(
            f"{k.item_id[:10]}  {k.finding:8} {k.effect:+.3f} [{k.low:+.3f}, {k.high:+.3f}]  helped {k.helped}, hurt {k.hurt} of "
            f"{k.examples}  {one_line(k.operation, 20)}  {one_line(k.text, 70)}"
        )
