"""`gepa-atlas migrate`: a configuration of ATLAS in today's form, and what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """
Example:

  gepa-atlas migrate old.yaml --output new.yaml
"""


def migrate(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A configuration of ATLAS.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="NEW", help="Where to write it. Default: OLD.new.yaml beside OLD.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace NEW if it exists.")] = False,
) -> None:
    """Write the configuration OLD of ATLAS in today's form and list what changed. OLD itself already runs as it is."""
    import shlex

    from gepa_atlas.config import load_config, read_modern
    from gepa_atlas.configfile import dump
    from gepa_atlas.dotenv import load_env_files
    from gepa_atlas.errors import ConfigError
    from gepa_atlas.store.exports import atomic_write

    target = output if output is not None else old.with_name(f"{old.stem}.new.yaml")
    tree, changes = read_modern(old)
    if not changes:
        typer.echo(f"{old} has no keys of ATLAS: there is nothing to change")
        return
    if target.exists() and not force:
        raise ConfigError(f"{target}: this file exists; choose another one with --output, or replace it with --force")
    if target.resolve() == old.resolve():
        raise ConfigError(f"{target}: this is the old file; choose another one with --output")
    atomic_write(target, f"# {old.name} of ATLAS, written by gepa-atlas migrate. Every key: docs/configuration.md\n{dump(tree)}")
    for line in changes:
        typer.echo(f"  {line}")
    if target.absolute().parent != old.absolute().parent:
        typer.echo(f"  paths of data, judges and code start at {target.absolute().parent} now: correct those that are relative")
    typer.echo(f"{target}: written")
    load_env_files(target)
    try:
        load_config(target)
    except ConfigError as error:
        typer.echo(f"still to do: {error}")
    typer.echo(f"next: gepa-atlas check {shlex.quote(str(target))}")
