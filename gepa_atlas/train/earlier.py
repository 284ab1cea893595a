"""What a finished stage made is set aside while the stage runs again for another configuration, and dropped once the new result is whole.

So a run that is refused, killed or stopped half-way loses nothing: the earlier result comes back where the new one cannot be made (a user
error), and when the configuration goes back to it. It lies in `.<stage>.earlier/` of the output directory, laid out as that is. Every move
is a rename; `mend` undoes one that a kill cut in two.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from gepa_atlas.handoff.workspace import StageRecord, Workspace, read_record, sha256_file

SUFFIX = ".earlier"


def aside(work: Workspace) -> Workspace:
    """The same stage where its earlier result is kept."""
    return replace(work, output_dir=work.output_dir / f".{work.stage}{SUFFIX}")


def keep(work: Workspace) -> None:
    """Set the stage's result aside, in place of one that was set aside before."""
    drop(work)
    _move(work, aside(work))


def bring_back(work: Workspace) -> bool:
    """Put what was set aside in the place of what the stage left. False: nothing was."""
    if not aside(work).output_dir.is_dir():
        return False
    empty(work)
    _move(aside(work), work)
    drop(work)
    return True


def drop(work: Workspace) -> None:
    shutil.rmtree(aside(work).output_dir, ignore_errors=True)


def empty(work: Workspace) -> None:
    """Remove what a run of the stage left, its record first: files without one are unfinished work."""
    for path in (work.record_path(work.stage), *_parts(work)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def mend(work: Workspace) -> None:
    """Leave one result of two where a kill fell between the renames, or after the new result was whole."""
    if not aside(work).output_dir.is_dir():
        return
    here = read_record(work.record_path(work.stage))
    if here is not None and here.status == "done":
        drop(work)
    elif here is None and unchanged(aside(work)) is not None:
        bring_back(work)
    elif here is None:
        _move(aside(work), work)


def unchanged(work: Workspace) -> StageRecord | None:
    """The record of a stage that is done and whose outputs are what it says."""
    record = read_record(work.record_path(work.stage))
    return record if record is not None and record.status == "done" and not changed_outputs(work, record) else None


def changed_outputs(work: Workspace, record: StageRecord) -> list[str]:
    """Outputs that are gone or are no longer what the record says."""

    def intact(name: str, sha: str) -> bool:
        path = work.folder / name
        return path.is_file() and sha256_file(path) == sha

    return [name for name, sha in record.outputs.items() if not intact(name, sha)]


def _parts(work: Workspace) -> tuple[Path, ...]:
    """What a stage leaves, record first: its folder; `validate` has two files in that of `export`, and a bundle's record lies beside it."""
    record = work.record_path(work.stage)
    if work.stage == "validate":
        return record, work.folder / "validation.json"
    return (work.folder,) if record.is_relative_to(work.folder.resolve()) else (record, work.folder)


def _move(source: Workspace, target: Workspace) -> None:
    for old, new in zip(_parts(source), _parts(target), strict=True):
        if old.exists() and not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
