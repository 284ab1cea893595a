"""The shape of every result file: {"meta": {...}, "rows": [flat objects]}, and tables for people."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]
OPTIMIZER_SOURCES = ("gepa_atlas/evolve", "gepa_atlas/propose", "gepa_atlas/loop.py", "gepa_atlas/types.py", "benchmarks/optimizers")


def source_hash(*paths: str) -> str:
    """SHA-256 (16 hex digits) over the names and contents of every source and prompt file under the paths, sorted."""
    total = hashlib.sha256()
    for top in paths:
        where = ROOT / top
        files = sorted(p for p in where.rglob("*") if p.suffix in (".py", ".md")) if where.is_dir() else [where] if where.exists() else []
        for file in files:
            total.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def optimizer_hash() -> str:
    """The hash of everything that decides how an optimizer moves: any edit draws new worlds."""
    return source_hash(*OPTIMIZER_SOURCES)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*args: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _module() -> str:
    """What follows `python -m benchmarks.`."""
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__").removeprefix("benchmarks.") if spec else Path(sys.argv[0]).stem


def _last_part(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{Path(value).name if Path(value).is_absolute() else value}"


def meta(benchmark: str, **more: Any) -> dict[str, Any]:
    """Where and with what a result was made. No host names, and of a path its last part only."""
    versions = {name: _version(name) for name in ("gepa-atlas", "gepa", "dspy", "optuna", "numpy", "xllamacpp")}
    return {
        "benchmark": benchmark,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain").splitlines()),
        "versions": {"python": platform.python_version(), **versions},
        "machine": {"system": platform.system(), "arch": platform.machine(), "cpus": os.cpu_count()},
        "command": " ".join([_module(), *map(_last_part, sys.argv[1:])]),
        **more,
    }


def write(path: Path, about: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write a result file whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"meta": about, "rows": list(rows)}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def table(rows: Sequence[Row], columns: Sequence[str], heads: Mapping[str, str] | None = None) -> str:
    """Rows as a plain aligned table; a missing value is a dash."""
    heads = heads or {}
    cells = [[heads.get(c, c) for c in columns], *([_cell(r.get(c)) for c in columns] for r in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["  ".join(v.ljust(w) if i < 2 else v.rjust(w) for i, (v, w) in enumerate(zip(line, widths, strict=True))) for line in cells]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"
    return str(value)


def rounded(value: float | None, digits: int = 6) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)
