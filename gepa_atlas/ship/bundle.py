"""The bundle: adapter, prompt, evidence and card in one folder, content-addressed, there whole or not at all.

adapter/  prompt.txt  prompt.json  demos.json  decision.json  eval/cells.jsonl  eval_2x2.json  manifest.json  README.md  SHA256SUMS
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.errors import DataError
from gepa_atlas.handoff.workspace import StageResult, Workspace, sha256_file
from gepa_atlas.secrets import scrub
from gepa_atlas.ship import sums
from gepa_atlas.ship.adapter import card, serve_line, shipped_files
from gepa_atlas.ship.card import model_card
from gepa_atlas.ship.contents import Contents, of_run, pretty
from gepa_atlas.ship.decision import read
from gepa_atlas.ship.gate import CELLS, EVAL, ShipConfig
from gepa_atlas.ship.registry import Registry
from gepa_atlas.store.exports import refused

SCHEMA = "gepa-atlas.bundle/1"


def run(work: Workspace, config: ShipConfig) -> StageResult:
    """The stage `package`: bundle/ of the training run, and its promotion where `package.promote` says so.

    The promotion is part of the stage: a run that is killed before it does it again, and one that is only looked at again does not undo
    a rollback. Raises DataError when a file is not the one that was judged, GateRefused when it may not be promoted.
    """
    gate, handoff = work.folder_of("gate"), work.folder_of("export")
    manifest = sums.read_json(handoff / "manifest.json") if (handoff / "manifest.json").is_file() else {}
    bundle = build(
        work.folder,
        of_run(work),
        decision=gate / sums.DECISION,
        evaluation=gate / EVAL,
        cells=work.folder_of("eval") / CELLS,
        operation=config.package.operation,
        license=config.package.license,
        data=_counts(manifest),
        manifest={
            "seed": work.seed,
            "handoff": manifest,
            "stages": {
                name: {"config_sha256": record.config_sha256, "versions": dict(record.versions), "ended": record.ended}
                for name in ("export", "sft", "preference", "train", "distill", "eval", "gate")
                if work.is_done(name) and (record := work.finished(name))
            },
        },
    )
    if config.package.promote:
        Registry(Path(config.package.registry)).promote(work.folder)
        work.progress.note(f"package: bundle {bundle} serves {config.package.operation}")
    figures = {"bundle": bundle, "operation": config.package.operation, "promoted": config.package.promote}
    return StageResult((*sums.files_of(work.folder), sums.SUMS), figures)


def build(
    target: Path,
    contents: Contents,
    *,
    decision: Path,
    evaluation: Path,
    cells: Path,
    operation: str,
    license: str | None = None,
    data: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> str:
    """Build the bundle in `target`, replacing what is there; returns its id. Raises DataError unless the decision is about these files."""
    unfinished = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        document = _copy(unfinished, contents, decision, evaluation, cells)
        said = card(contents.adapter) if contents.adapter is not None else None
        serve = None
        if said is not None:
            serve = serve_line(operation, unfinished / "adapter", str(said.get("base", "BASE")), Path("adapter"))
        text = model_card(
            operation=operation,
            license=license,
            decision=document,
            evaluation=sums.read_json(evaluation),
            adapter=said,
            data=data or {},
            serve=serve,
        )
        (unfinished / "README.md").write_text(scrub(text), "utf-8")
        about = {"schema": SCHEMA, "operation": operation, "serve": serve, "adapter": said, **(manifest or {})}
        (unfinished / "manifest.json").write_bytes(pretty(about))
        bundle = sums.write_sums(unfinished)
        _replace(unfinished, target)
        return bundle
    except OSError as error:
        raise refused(target, error) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _replace(unfinished: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}-old-{os.getpid()}")
    if target.exists():
        target.rename(old)
    sums.put_in_place(unfinished, target)
    shutil.rmtree(old, ignore_errors=True)


def _copy(folder: Path, contents: Contents, decision: Path, evaluation: Path, cells: Path) -> dict[str, Any]:
    """Put everything that was judged into the folder, and hold it against the decision, which is returned."""
    (folder / "eval").mkdir(parents=True)
    for name, content in contents.texts.items():
        (folder / name).write_bytes(content)
    if contents.adapter is not None:
        (folder / "adapter").mkdir()
        for file in shipped_files(contents.adapter):
            shutil.copyfile(file, folder / "adapter" / file.name)
    shutil.copyfile(decision, folder / sums.DECISION)
    shutil.copyfile(evaluation, folder / EVAL)
    shutil.copyfile(cells, folder / "eval" / CELLS)
    document = read(folder)
    judged = document["bundle_sha256s"]
    there = {name: sha256_file(folder / name) for name in sums.files_of(folder) if name != sums.DECISION}
    if judged != there:
        odd = sorted(name for name in there.keys() | judged.keys() if there.get(name) != judged.get(name))
        raise DataError(f"{decision}: the decision is about another {odd[0]}; run the stage `gate` again")
    return document


def _counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of each file of the hand-off, for the card."""
    rows = manifest.get("rows")
    return {f"{name} (rows)": value for name, value in rows.items() if isinstance(value, int)} if isinstance(rows, dict) else {}
