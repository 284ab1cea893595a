"""A new run that shares the beginning of another: the rows of its log up to a told slot, hashed anew. The other run is only read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.store.exports import refused
from gepa_atlas.store.log import Draft
from gepa_atlas.store.run import Run
from gepa_atlas.store.view import RunView


def fork(source: Path, target: Path, slot: int, config: Mapping[str, Any]) -> None:
    """Make the run directory `target` with everything up to the decision of slot `slot`, whole or not at all.

    The log is in the order of commits, so whatever a decision rests on stands before it: its prefix replays without a call. Calls that were
    under way for later slots are kept when they had been answered by then, and forgotten otherwise. `config` is saved as the new run's.
    Raises ConfigError, StoreFull, RunDamaged.
    """
    if target.exists():
        raise ConfigError(f"{target}: exists already; choose a new directory with --run-dir")
    with RunView.read(source) as run:
        told = [event.n for event in run.events() if event.kind == "slot"]
        if not 0 <= slot < len(told):
            known = f"slots 0 to {len(told) - 1}; choose one of them" if told else "no slot yet; there is nothing to branch from"
            raise ConfigError(f"--at {slot}: {source} has told {known}")
        manifest, rows = run.manifest, list(_prefix(run, told[slot]))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise refused(target, error) from None
    try:
        with Run.open(draft, manifest=manifest, config=config) as new:
            new.adopt(rows)
        os.rename(draft, target)
    except OSError as error:
        raise refused(target, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _prefix(run: RunView, last: int) -> Iterator[Draft]:
    """Intents with their entries, and events, up to event `last`. The ids by which rows name each other are moved with them."""
    rows = run.rows()
    rows = rows[: 1 + next(i for i, row in enumerate(rows) if row.kind == "event" and int(row.name) == last)]
    settled = {row.head["intent"] for row in rows if row.kind == "entry"}
    moved: dict[int, int] = {}
    for number, row in enumerate(rows, 1):
        forgotten = row.kind == "intent" and number not in settled
        if row.kind in ("run", "status") or forgotten or (row.kind == "event" and int(row.name) > last):
            continue
        moved[number] = Run.OWN_ROWS + len(moved) + 1
        if row.kind == "entry":
            yield Draft(row.kind, row.name, row.head | {"intent": moved[row.head["intent"]]}, row.body)
        elif row.kind == "event":
            yield Draft(row.kind, row.name, row.head | {"leans": sorted(moved[lean] for lean in row.head["leans"])}, row.body)
        else:
            yield row
