"""What the `grpo` commands do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from gepa_atlas.cli.grpo_view import Lines
from gepa_atlas.configfile import dump
from gepa_atlas.dotenv import load_env_files
from gepa_atlas.store.lock import alive, owner
from gepa_atlas.train import runner
from gepa_atlas.train.config import LoadedTrain, load_train_config
from gepa_atlas.train.fields import check_fields, require_extra
from gepa_atlas.train.report import build_report, records
from gepa_atlas.train.stages import chain
from gepa_atlas.train.surroundings import prepare

_CODES = {"ok": "ok  ", "note": "note", "bad": "BAD "}


def load(
    config: Path,
    export_path: Path | None,
    output_dir: Path | None,
    sets: Sequence[str] | None,
    more: Mapping[str, Any] | None = None,
    over: Sequence[Path] | None = None,
) -> LoadedTrain:
    """The configuration with the flags of a command in it."""
    load_env_files(config)
    flags = {
        "handoff.path": str(export_path.absolute()) if export_path else None,
        "output_dir": str(output_dir) if output_dir else None,
        **(more or {}),
    }
    return load_train_config(config, sets or (), flags=flags, over=over or ())


def wandb(project: str | None, name: str | None) -> dict[str, Any]:
    """ATLAS's flags: naming a project is asking for wandb."""
    return {
        "tracking.report_to": ["wandb"] if project else None,
        "tracking.project": project,
        "tracking.run_name": name,
    }


def enabling(stage: str) -> dict[str, Any]:
    """Who names an optional stage wants it."""
    wanted: dict[str, dict[str, Any]] = {"preference": {"preference.enabled": True}, "distill": {"handoff.prompt_mode": "distil"}}
    return wanted.get(stage, {})


def launching(processes: int, vllm_gpus: int, cpu: bool) -> dict[str, Any]:
    server = {"vllm.mode": "server", "vllm.gpus": vllm_gpus, "vllm.tensor_parallel_size": vllm_gpus} if vllm_gpus else {}
    return {"launch.backend": "accelerate", "launch.processes": processes, "launch.cpu": cpu or None, **server}


def run(loaded: LoadedTrain, *, first: str | None, until: str | None, quiet: bool, as_json: bool) -> int:
    prepare(loaded.config, loaded.base_dir)
    if any(stage.seeded for stage in runner.part_of(chain(loaded.config), first, until)):  # export and validate need no trl
        require_extra()
        check_fields(loaded.config)
    try:
        ran = runner.run(loaded, first=first, until=until, progress=Lines(quiet or as_json))
    except KeyboardInterrupt:
        typer.echo(f"interrupted: what is done is kept in {loaded.output_dir}; the same command goes on from here", err=True)
        return 130
    report = build_report(ran.output_dir, loaded)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return 0
    for line in closing(report, ran):
        typer.echo(line)
    return 0


def closing(report: Mapping[str, Any], ran: runner.Ran) -> list[str]:
    """The last lines of a run."""
    done = [name for name in ran.records if name not in ran.skipped]
    lines = [f"Stages: {', '.join(done) or 'none had to run'}" + (f" (unchanged: {', '.join(ran.skipped)})" if ran.skipped else "")]
    if report["verdict"] is not None:
        lines.append(f"Gate: {report['verdict']}")
    if report["gain"] is not None:
        lines.append(
            f"Held-out delta: {report['base_delta']:+.3f} -> {report['trained_delta']:+.3f} "
            f"(gain {report['gain']:+.3f}, interval [{report['gain_low']:+.3f}, {report['gain_high']:+.3f}], {report['n_tasks']} tasks)"
        )
    return [*lines, f"Report: {ran.report}"]


def dry_run(loaded: LoadedTrain, *, as_json: bool) -> int:
    from gepa_atlas.train.plan import plan, plan_lines

    prepare(loaded.config, loaded.base_dir)
    check_fields(loaded.config)
    planned = plan(loaded)
    if as_json:
        typer.echo(json.dumps(planned, indent=2))
        return 0
    typer.echo(dump(planned["config"]).rstrip())
    for line in plan_lines(planned):
        typer.echo(line)
    return 0


def status(directory: Path, *, as_json: bool) -> int:
    loaded = runner.load_resolved(directory)
    claim = owner(directory)
    at_work = claim if alive(claim) else None
    if as_json:
        typer.echo(json.dumps({**build_report(directory, loaded), "owner": at_work}, indent=2))
        return 0
    known = records(directory, loaded)
    for stage in chain(loaded.config):
        record = known.get(stage.name)
        if record is None:
            typer.echo(f"{stage.name:10} -")
            continue
        state = "interrupted" if record.status == "running" and at_work is None else record.status
        typer.echo(
            f"{stage.name:10} {state:12} {record.started[:19]}{runner.brief(record.figures)}{f'; {record.error}' if record.error else ''}"
        )
    typer.echo(f"at work: process {at_work['pid']} on {at_work['host']}" if at_work else "at work: nobody")
    return 0


def doctor(config: Path | None, sets: Sequence[str] | None, *, as_json: bool) -> int:
    from gepa_atlas.train.doctor import examine

    rows = examine(load(config, None, None, sets) if config else None)
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows], indent=2))
    else:
        for row in rows:
            typer.echo(
                f"{_CODES[row.state]} {row.name:13} {row.said}" + (f"\n{'':18} -> {row.fix}" if row.state != "ok" and row.fix else "")
            )
    return 2 if any(row.state == "bad" for row in rows) else 0
