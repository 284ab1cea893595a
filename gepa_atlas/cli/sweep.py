"""`gepa-atlas sweep SWEEP.yaml`, and `sweep status|report|best DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

EPILOG = """
Examples:

  gepa-atlas sweep configs/sweeps/toyworld.yaml

  gepa-atlas sweep configs/sweeps/toyworld.yaml --resume --set backend=ray

  gepa-atlas sweep my.yaml --out sweeps/my --set search.trials=80 --resume    (more trials of the same search)

  gepa-atlas sweep my.yaml --out sweeps/my --resume --retry-failed    (what made cells fail is mended)

  gepa-atlas sweep report sweeps/toyworld --table

A sweep's trials lie in an optuna study: `optuna-dashboard` opens DIR/study.journal, or the database that `storage` names.
"""


class _WithRun(TyperGroup):
    """`sweep FILE` is `sweep run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next((a for a in args if not a.startswith("-")), None)
        if first is not None and first not in self.commands:
            args = ["run", *args]
        found: list[str] = super().parse_args(ctx, args)
        return found


app = typer.Typer(
    cls=_WithRun, rich_markup_mode=None, help="Which settings are best: run a matrix or a search, and read it.", epilog=EPILOG
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a sweep.", show_default=False)]


@app.command("run", epilog=EPILOG)
def run(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="The YAML file of the sweep.", show_default=False)],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as backend=ray; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The sweep's folder. Default: sweeps/<name>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in DIR, also beside another process.")] = False,
    take_over: Annotated[bool, typer.Option("--take-over", help="Also go on with trials that another machine left behind.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="With --resume: also run the cells again that failed.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; the closing lines only.")] = False,
) -> None:
    """Run SWEEP: every cell once, then write report.html, report.md and table.tsv."""
    from gepa_atlas.dotenv import load_env_files
    from gepa_atlas.errors import SweepFailed
    from gepa_atlas.secrets import watch_environment
    from gepa_atlas.sweep.config import load_sweep
    from gepa_atlas.sweep.report import best_lines, failure, read_findings, summary, write_report
    from gepa_atlas.sweep.runner import run_sweep

    load_env_files(sweep)
    watch_environment()
    plan = load_sweep(sweep, set_)
    folder = out or Path("sweeps") / plan.name
    if not quiet:
        trials, each, most = plan.planned(), len(plan.instances), plan.config.search.cells
        said = f"{trials} combinations x {each} (suite, seed) = {trials * each} cells" if most is None else f"at most {most} cells"
        typer.echo(f"{plan.name}: {said} in {folder}", err=True)
    done = 0

    def progress(row: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if not quiet:
            typer.echo(_progress(done, row), err=True)

    run_sweep(plan, folder, resume=resume, take_over=take_over, retry_failed=retry_failed, progress=progress)
    findings = read_findings(folder)
    for line in (f"{summary(findings)}.", *best_lines(findings)):
        typer.echo(line)
    if findings.counts["running"]:
        typer.echo("What is running is another process's; what a machine that is gone had begun goes on with --resume --take-over.")
    for what, path in write_report(folder, findings).items():
        typer.echo(f"{what}: {path}")
    if (why := failure(findings)) is not None:
        raise SweepFailed(why)


def _progress(done: int, row: dict[str, Any]) -> str:
    settings = " ".join(f"{k}={v}" for k, v in row["settings"].items())
    said = f"failed: {row['error']}" if row["error"] else f"gain {row['gain']:+.3f}" if row.get("gain") is not None else "done"
    seconds = "" if row["time"] is None else f"  {row['time']:.1f} s"
    return f"{done:5}  {row['suite']} seed={row['seed']} {settings}  {said}{seconds}"


@app.command("status")
def status(folder: Folder) -> None:
    """How far the sweep in DIR is."""
    from gepa_atlas.sweep.report import read_findings, summary

    findings = read_findings(folder)
    typer.echo(summary(findings))
    typer.echo(
        f"{sum(len(t.rows) for t in findings.trials)} cells have a row, {sum(len(t.errors) for t in findings.trials)} of them failed"
    )


@app.command("report")
def report(
    folder: Folder,
    table: Annotated[bool, typer.Option("--table", help="Print the plain table of all cells and write nothing.")] = False,
    results: Annotated[
        Path | None, typer.Option("--results", metavar="FILE", help="Also write rows there for benchmarks/LEADERBOARD.md.")
    ] = None,
) -> None:
    """Write report.html, report.md and table.tsv of the sweep in DIR, finished or not."""
    from datetime import UTC, datetime

    from gepa_atlas import __version__
    from gepa_atlas.store.exports import write_json
    from gepa_atlas.sweep import report as texts

    findings = texts.read_findings(folder)
    if table:
        typer.echo(texts.table(findings), nl=False)
        return
    for what, path in texts.write_report(folder, findings).items():
        typer.echo(f"{what}: {path}")
    if results is not None:
        meta = {
            "benchmark": "sweep", "made": datetime.now(UTC).isoformat(timespec="seconds"), "versions": {"gepa-atlas": __version__},
            "sweep": findings.name, "counts": findings.counts,
        }  # fmt: skip
        write_json(results, {"meta": meta, "rows": texts.result_rows(findings)})
        typer.echo(f"Rows: {results}")


@app.command("best")
def best(
    folder: Folder,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """The best settings of the sweep in DIR, and how sure that is."""
    from gepa_atlas.sweep.report import as_json, best_lines, read_findings

    findings = read_findings(folder)
    if json_:
        typer.echo(as_json(findings))
        return
    for line in best_lines(findings):
        typer.echo(line)
