"""A cell in a process of its own, where it may hang or eat memory: it fails alone, and its worker stays."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gepa_atlas.sweep.cell import Parcel, Row, run_cell
from gepa_atlas.sweep.config import Cell, LimitsConfig

_WATCH_SECONDS = 0.5
_PARCEL, _ROW, _SAID = "parcel.json", "row.json", "stderr"


def run_limited(packed: Parcel, limits: LimitsConfig) -> Row:
    """As `run_cell`; a cell that passes a limit has failed, and says which."""
    row: Row = packed.cell.head() | {"time": None}
    with tempfile.TemporaryDirectory(prefix="gepa_atlas_cell_") as name, Path(name, _SAID).open("w+b") as said:
        place = Path(name)
        (place / _PARCEL).write_text(_written(packed, limits), "utf-8")
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from gepa_atlas.sweep.limits import child; child(sys.argv[1])", name],
            stdin=subprocess.DEVNULL, stderr=said, start_new_session=True, env=_environment(),
        )  # fmt: skip
        try:
            process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            return row | {"time": limits.seconds, "error": f"it was not done after {limits.seconds:g} seconds (limits.seconds)"}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with everything it started
            process.wait()
        if (place / _ROW).exists():
            found: Row = json.loads((place / _ROW).read_text("utf-8"))
            return found
        code = process.returncode
        said.seek(0)
        last = " ".join(said.read().decode(errors="replace").split())[-200:]
        return row | {"error": f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}{last and f': {last}'}"}


@functools.cache
def end_with(parent: int, end: Callable[[], None]) -> None:
    """Call `end` when this process is no longer a child of `parent`."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        end()

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


# -- in the process ---------------------------------------------------------------------------------------------------


def child(name: str) -> None:
    """Run the parcel in this directory, and leave its row there."""
    packed, parent, megabytes = _read(Path(name, _PARCEL).read_text("utf-8"))
    end_with(parent, lambda: os.killpg(0, signal.SIGKILL))
    if megabytes is not None and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 1_000_000,) * 2)
    row = run_cell(packed)
    Path(name, "part").write_text(json.dumps(row), "utf-8")
    Path(name, "part").replace(Path(name, _ROW))
    os._exit(0)  # a thread of the cell that never ends holds nothing up


def _environment() -> dict[str, str]:
    """Where this package came to the worker by a path of its own, the process has it too."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _written(packed: Parcel, limits: LimitsConfig) -> str:
    files = [[name, b64encode(content).decode()] for name, content in packed.files]
    return json.dumps({"packed": {**asdict(packed), "files": files}, "parent": os.getpid(), "megabytes": limits.megabytes})


def _read(text: str) -> tuple[Parcel, int, int | None]:
    tree: dict[str, Any] = json.loads(text)
    packed = tree["packed"]
    cell = packed["cell"]
    packed["cell"] = Cell(cell["suite"], tuple((name, value) for name, value in cell["settings"]), cell["seed"])
    packed["files"] = tuple((name, b64decode(content)) for name, content in packed["files"])
    return Parcel(**packed), tree["parent"], tree["megabytes"]
