"""`gepa-atlas registry package|list|show|promote|rollback|resolve|verify`: which bundle serves which operation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gepa_atlas.errors import BundleDamaged, ConfigError

app = typer.Typer(help="Which bundle serves which operation: promote, roll back, resolve.", no_args_is_help=True, rich_markup_mode=None)

Root = Annotated[Path, typer.Option("--registry", help="The registry's directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Operation = Annotated[str, typer.Argument(metavar="OPERATION", show_default=False, help="What the bundle is promoted for.")]
Bundle = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE", show_default=False, help="A bundle's folder, a training run's folder, or (6 or more characters of) an id."
    ),
]
_DEFAULT = Path("registry")


@app.command(
    "package",
    epilog="Examples:\n\n  gepa-atlas registry package runs/toyworld --operation triage\n\n"
    "  gepa-atlas registry package runs/toyworld --operation triage --set min_ndr=0.9 --set min_ndr_lcb=0.8",
)
def package(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished optimization run.", show_default=False)],
    operation: Annotated[str, typer.Option("--operation", help="What the prompt is for.", show_default=False)],
    registry: Root = _DEFAULT,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of the gate, such as min_ndr=0.9.")] = None,
    license_: Annotated[str | None, typer.Option("--license", help="Of the model card.")] = None,
) -> None:
    """Put the evolved prompt of RUN before the gate, on its held-out lessons, and make a bundle in RUN/bundle. Exit code 3 when refused."""
    from gepa_atlas.cli import session, views
    from gepa_atlas.configfile import assign
    from gepa_atlas.settings import load
    from gepa_atlas.ship import prompt_only
    from gepa_atlas.ship.config import GateConfig, PackageConfig

    tree: dict[str, Any] = {}
    for assignment in set_ or []:
        tree = assign(tree, assignment, lambda at: at)
    named = {"operation": operation, "registry": str(registry), "license": license_}
    config = prompt_only.Prompts(load(GateConfig, tree, "gate"), load(PackageConfig, named, "package"))
    directory = views.find_run(run)
    result = session.replay(directory)
    held_out = set(result.evolution.test)
    lessons = list({lesson.cell: lesson for lesson in result.lessons if lesson.example.id in held_out}.values())
    seed, winner = result.evolution.seed, session.challenger_of(result)
    decided, made = prompt_only.package(directory, lessons, seed, winner, config)
    typer.echo(f"{decided.verdict}: {'; '.join(decided.reasons)}")
    typer.echo(f"bundle {made} in {directory / 'bundle'}; `gepa-atlas registry promote {directory}` lets it serve {operation}")


@app.command("list", epilog="Example:\n\n  gepa-atlas registry list --json")
def list_(registry: Root = _DEFAULT, json_: Json = False) -> None:
    """List operations with what serves them, and every bundle."""
    from gepa_atlas.ship.registry import Registry

    found = Registry(registry)
    rows = [found.channel(operation).to_json() for operation in found.operations()]
    if json_:
        typer.echo(json.dumps({"operations": rows, "bundles": found.bundles()}, indent=2))
        return
    for row in rows:
        beside = f", {row['canary']['mode']} {row['canary']['percent']:g} % {row['canary']['bundle']}" if row["canary"] else ""
        typer.echo(f"{row['operation']}: {row['current'] or 'base'} (before: {row['previous'] or 'base'}){beside}")
    typer.echo(f"{len(found.bundles())} bundles in {registry}")


@app.command("show", epilog="Example:\n\n  gepa-atlas registry show runs/teacher-grpo")
def show(bundle: Bundle, registry: Root = _DEFAULT, json_: Json = False) -> None:
    """Show the decision on a bundle."""
    from gepa_atlas.ship import decision, sums
    from gepa_atlas.ship.registry import Registry

    folder = Registry(registry).find(bundle)
    document = decision.read(folder)
    if json_:
        typer.echo(json.dumps({"bundle": sums.bundle_id(folder), "path": str(folder), "decision": document}, indent=2))
        return
    typer.echo(f"bundle {sums.bundle_id(folder)} for {document['operation']} in {folder}")
    typer.echo(f"{document['verdict']}: {'; '.join(document['reasons'])}")
    for criterion in document["criteria"]:
        mark = {True: "passed   ", False: "failed   ", None: "undecided"}[criterion["passed"]]
        typer.echo(f"  {mark} {criterion['name']}: {_figure(criterion)}")
    for warning in document["warnings"]:
        typer.echo(f"  note: {warning}")


def _figure(criterion: dict[str, Any]) -> str:
    value, low, high = criterion["value"], criterion["low"], criterion["high"]
    if value is None:
        return str(criterion["reason"] or criterion["rule"])
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{value:.3f}{interval} ({criterion['rule']})"


@app.command(
    "promote",
    epilog="Examples:\n\n  gepa-atlas registry promote runs/teacher-grpo\n\n  gepa-atlas registry promote runs/teacher-grpo --canary 5",
)
def promote(
    bundle: Bundle,
    registry: Root = _DEFAULT,
    canary: Annotated[float | None, typer.Option(help="Serve this percentage beside what serves now.")] = None,
    shadow: Annotated[float | None, typer.Option(help="Mirror this percentage; answers are not used.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote against the gate; needs --reason, which is recorded.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why the gate is overridden.")] = "",
    key_env: Annotated[str | None, typer.Option("--key-env", help="Demand a signature with the key in this variable.")] = None,
) -> None:
    """Let BUNDLE serve its operation. Exit code 3, and nothing changes, unless its decision passed and is about exactly these files."""
    from gepa_atlas.ship.registry import Registry

    if force != bool(reason.strip()):
        raise ConfigError("--force and --reason TEXT go together: an override without a reason is refused, and a reason needs one")
    if canary is not None and shadow is not None:
        raise ConfigError("--canary and --shadow: choose one; a bundle is served or mirrored")
    percent, mode = (shadow, "shadow") if shadow is not None else (canary, "canary")
    if percent is not None and not 0 <= percent <= 100:
        raise ConfigError(f"--{mode} {percent:g}: a percentage is from 0 to 100")
    found = Registry(registry)
    channel = found.promote(
        found.find(bundle),
        reason=reason if force else None,
        canary=percent,
        mode="shadow" if mode == "shadow" else "canary",
        key_env=key_env,
    )
    beside = f", {mode} {percent:g} % of {channel.canary['bundle']}" if percent is not None and channel.canary else ""
    typer.echo(f"{channel.operation}: {channel.current or 'base'} serves{beside}; before it: {channel.previous or 'base'}")


@app.command("rollback", epilog="Examples:\n\n  gepa-atlas registry rollback teacher\n\n  gepa-atlas registry rollback teacher --to base")
def rollback(
    operation: Operation,
    registry: Root = _DEFAULT,
    to: Annotated[
        str | None, typer.Option("--to", help="A bundle that served it before, or base.", show_default="what served before")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded.")] = "",
) -> None:
    """Go back: withdraw a canary if there is one, else let what served before serve again."""
    from gepa_atlas.ship.registry import Registry

    channel = Registry(registry).rollback(operation, to=to, reason=reason)
    typer.echo(f"{operation}: {channel.current or 'base'} serves; before it: {channel.previous or 'base'}")


@app.command("resolve", epilog="Examples:\n\n  gepa-atlas registry resolve teacher\n\n  gepa-atlas registry resolve teacher --json")
def resolve(operation: Operation, registry: Root = _DEFAULT, json_: Json = False) -> None:
    """Print the path of the bundle that serves OPERATION now, or `base`."""
    from gepa_atlas.ship.registry import Registry

    found = Registry(registry).resolve(operation)
    if not registry.is_dir():
        typer.echo(f"note: there is no registry {registry}, so nothing was ever promoted in it", err=True)
    typer.echo(json.dumps(found, indent=2) if json_ else (found["path"] or "base"))


@app.command("verify", epilog="Examples:\n\n  gepa-atlas registry verify\n\n  gepa-atlas registry verify runs/teacher-grpo")
def verify(
    bundle: Annotated[
        str | None, typer.Argument(metavar="[BUNDLE]", show_default=False, help="One bundle; default: the whole registry.")
    ] = None,
    registry: Root = _DEFAULT,
) -> None:
    """Hold every file against its checksum. Exit code 4 when one differs."""
    from gepa_atlas.ship import sums
    from gepa_atlas.ship.registry import Registry

    found = Registry(registry)
    if bundle is not None:
        folder = found.find(bundle)
        typer.echo(f"{folder}: {len(sums.verify(folder))} files are what SHA256SUMS says (bundle {sums.bundle_id(folder)})")
        return
    problems = found.problems()
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise BundleDamaged(f"{registry}: {len(problems)} problems; restore what is named from a copy, or roll back")
    typer.echo(f"{registry}: {len(found.bundles())} bundles and {len(found.operations())} operations are whole")
