"""What `runs list`, `show`, `digest` and `calls` print. Reading never needs the run's lock."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from gepa_atlas.errors import ConfigError
from gepa_atlas.store.view import RunView, list_runs


def find_run(name: str) -> Path:
    """The directory of a run given by path, or by name below runs/."""
    for directory in (Path(name), Path("runs") / name):
        if directory.is_dir():
            return directory
    raise ConfigError(f"{name}: there is no such run directory, here or below runs/; `gepa-atlas runs list` shows those there are")


def show_list(directory: str, *, as_json: bool) -> None:
    if not Path(directory).is_dir():
        raise ConfigError(f"{directory}: there is no such directory; give the one that holds your runs")
    found = list_runs(directory)
    if as_json:
        rows = [
            {
                "run": str(r.directory), "run_id": r.run_id, "status": r.status, "reason": r.reason,
                "started": r.started, "told": r.told, "rollouts": r.rollouts,
            }
            for r in found
        ]  # fmt: skip
        typer.echo(json.dumps(rows, indent=2))
        return
    if not found:
        typer.echo(f"no runs below {directory}; `gepa-atlas optimize CONFIG` starts one")
    for r in found:
        typer.echo(
            f"{r.directory.name:30} {r.status:12} {_when(r.started)}  {r.rollouts:6} rollouts  {r.told:5} slots  {r.reason}".rstrip()
        )


def show_run(name: str, *, as_json: bool) -> None:
    directory = find_run(name)
    with RunView.read(directory) as run:
        summary: dict[str, Any] = {
            "run": str(run.directory),
            "run_id": run.run_id,
            "status": run.status,
            "reason": run.reason,
            "started": run.started,
            "told": run.told,
            "digest": run.digest(),
            "calls": run.calls(),
            "result": read_result(run.directory),
        }
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{summary['run']}: {summary['status']} {summary['reason']}".rstrip())
    typer.echo(f"started {_when(summary['started'])}, {summary['told']} slots told, {summary['calls']['rollouts']} rollouts")
    typer.echo(f"digest  {summary['digest']}")
    result = summary["result"]
    if result is None:
        typer.echo("no result yet; the same `gepa-atlas optimize` command goes on with it")
        return
    for key in ("best_score", "initial_score", "improvement", "verdict"):
        if key in result:
            value = result[key]
            typer.echo(f"{key:14} {value['ruling'] if isinstance(value, dict) and 'ruling' in value else value}")


def print_digest(name: str) -> None:
    with RunView.read(find_run(name)) as run:
        typer.echo(run.digest())


def print_calls(name: str, *, as_json: bool) -> None:
    with RunView.read(find_run(name)) as run:
        calls = run.calls()
    if as_json:
        typer.echo(json.dumps(calls))
        return
    typer.echo(f"rollouts {calls['rollouts']}")
    for role, charged in calls["by_role"].items():
        typer.echo(f"{role:10} {json.dumps(charged)}")


def read_result(directory: Path) -> dict[str, Any] | None:
    """optimized_prompts.json of a run; None when there is none yet. Raises ConfigError when it is no JSON document."""
    path = directory / "optimized_prompts.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a mapping")
    except FileNotFoundError:
        return None
    except ValueError:
        raise ConfigError(f"{path}: is not JSON any more; `gepa-atlas report {directory}` writes it again") from None
    return found


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
