"""What `export`, `compare`, `why` and `runs fork` do."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from gepa_atlas.cli.views import find_run, read_result
from gepa_atlas.errors import ConfigError, RunChanged
from gepa_atlas.report.ledger import Ledger
from gepa_atlas.report.terminal import clean
from gepa_atlas.secrets import scrub
from gepa_atlas.store.exports import atomic_write
from gepa_atlas.types import Candidate

_WIDTH = 400  # characters of a printed line of figures


def export(name: str, form: str, output: Path | None) -> None:
    """Print what a finished run says to use, in another tool's form, or write it to a file."""
    from gepa_atlas.cli.session import KEPT
    from gepa_atlas.report.exporters import export as convert

    directory = find_run(name)
    document = read_result(directory)
    if document is None:
        raise ConfigError(f"{directory}: the run has no result yet; `gepa-atlas optimize` finishes it, `gepa-atlas report` writes it again")
    _, text = convert(document, form)
    if output is None:
        typer.echo(scrub(text), nl=False)
        return
    if output.name in KEPT:
        raise ConfigError(f"--output {output}: this is the name of a file that runs keep; choose another one")
    atomic_write(output, text)
    typer.echo(f"{form}: {output}")


def compare(one: str, other: str, *, as_json: bool) -> None:
    from gepa_atlas.report.compare import compare as compared
    from gepa_atlas.report.compare import lines

    found = compared(Ledger.read(find_run(one)), Ledger.read(find_run(other)))
    if as_json:
        typer.echo(scrub(json.dumps(found.to_json(), indent=2, ensure_ascii=False)))
        return
    for line in lines(found):
        typer.echo(clean(line, _WIDTH))


def why(name: str, candidate: str, *, as_json: bool) -> None:
    from gepa_atlas.report.why import lines
    from gepa_atlas.report.why import why as asked

    directory = find_run(name)
    ledger = Ledger.read(directory)
    found = asked(ledger, _seeds(directory), candidate, directory / "traces.jsonl")
    if as_json:
        typer.echo(scrub(json.dumps(found.to_json(), indent=2, ensure_ascii=False)))
        return
    for part in lines(found):
        for line in part.split("\n"):
            typer.echo(" " * (len(line) - len(line.lstrip(" "))) + clean(line))


def _seeds(directory: Path) -> tuple[Candidate, ...]:
    """The seed of a run: from its result; of a run without one, from its configuration, which must then be loadable."""
    from gepa_atlas.build import build_experiment
    from gepa_atlas.config import load_resolved

    result = read_result(directory) or {}
    if "seed_candidate" in result:
        row = result["seed_candidate"]
        return (Candidate.from_json({"texts": row["candidate"], "demos": row["demonstrations"], "settings": row["settings"]}),)
    return build_experiment(load_resolved(directory)).seeds


def fork(name: str, at: int, run_dir: Path | None, sets: list[str]) -> int:
    """Branch a run and go on with the branch; the exit code is that of `optimize`."""
    from gepa_atlas.build import build_experiment
    from gepa_atlas.cli.session import run_search
    from gepa_atlas.config import load_resolved
    from gepa_atlas.store.fork import fork as branch
    from gepa_atlas.store.view import RunView

    source = find_run(name)
    target = run_dir if run_dir is not None else source.with_name(f"{source.name}-fork-{at}")
    own = ["output=null", "trace_storage=null"]  # copies belong to the run that was forked
    loaded = load_resolved(source, [*own, *sets, f"run_dir={json.dumps(str(target))}"])
    with RunView.read(source) as run:
        before, now = run.manifest, build_experiment(loaded).manifest
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        raise RunChanged(
            f"{', '.join(changed)}: this decides what a run finds, so slots 0 to {at} would not replay; a fork may change budget, "
            "concurrency, retry, output and trace_storage"
        )
    branch(source, target, at, loaded.resolved)
    typer.echo(f"{target}: slots 0 to {at} of {source}", err=True)
    code = run_search(loaded, "auto")
    if code:
        typer.echo(f"the fork goes on with: gepa-atlas optimize {loaded.path} --run-dir {target}", err=True)
    return code
