"""Traces in and out: JSON lines (ours and ATLAS's session traces, also mixed) and Parquet. Import, export, import loses nothing.

A lesson leaves as its line of traces.jsonl with its `run_id` and `review_status`, which the hand-off reads, and the key `memory`, by which
another store knows it again. A session leaves as it came; only a changed review shows, as `review_status`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError, DataError, MissingExtra
from gepa_atlas.memory import rows
from gepa_atlas.memory.atlas import as_session
from gepa_atlas.memory.store import Memory, chunks
from gepa_atlas.secrets import scrub_json
from gepa_atlas.store.exports import refused, replacing
from gepa_atlas.types import digest

PARQUET = ("id", "kind", "run_id", "operation", "state", "created", "reward", "delta", "body")
_DEEPEST = 100  # levels of a line: what redacts it calls itself at each
_PAGE = 5000  # rows of a Parquet row group


def read_file(path: Path, operation: str) -> Iterator[rows.Trace]:
    """Traces of a file, in order. DataError names the line; nothing is guessed and nothing skipped."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; give a run directory, or a file of traces (.jsonl or .parquet)")
    lines = _parquet_lines(path) if path.suffix == ".parquet" else _json_lines(path)
    seen: Counter[str] = Counter()
    now, run_id = time.time(), f"file:{_fingerprint(path)}"
    for where, line in lines:
        try:
            if rows.is_lesson(line):
                yield rows.lesson(line, run_id, operation, now)
            else:
                key = digest({name: value for name, value in line.items() if name not in ("review_status", "review_notes")})
                yield rows.session(line, operation, now, seen[key])
                seen[key] += 1
        except (DataError, ValueError, RecursionError) as error:
            raise DataError(f"{where}: {error}") from None


def import_file(memory: Memory, path: Path, operation: str | None = None) -> tuple[int, int]:
    """(traces in the file, those that were new). The whole file is read before anything is written."""
    operation = operation or (path.absolute().parent.name if path.stem == "traces" else path.stem)
    total = sum(1 for _ in read_file(path, operation))
    return total, memory.add(read_file(path, operation))


def _fingerprint(path: Path) -> str:
    """Stands for the run of lessons that do not say theirs: the same file is the same run, another file is another."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def as_jsonl(found: Iterable[dict[str, Any]], path: Path, *, sessions: bool = False) -> int:
    """Write traces of `query.lines` as JSON lines, whole or not at all; how many. sessions: lessons too as ATLAS's session traces."""
    count = 0
    with _export(path) as temporary, temporary.open("w", encoding="ascii") as file:
        for row in found:
            file.write((_as_session(row) if sessions and row["kind"] == "lesson" else _exported(row)) + "\n")
            count += 1
    return count


def as_parquet(found: Iterable[dict[str, Any]], path: Path) -> int:
    """The same as Parquet: identity and state as columns, the line as JSON in `body`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise MissingExtra("Parquet", "parquet") from None
    kinds = pa.schema([(name, pa.float64() if name in ("created", "reward", "delta") else pa.string()) for name in PARQUET])
    count = 0
    with _export(path) as temporary, pq.ParquetWriter(temporary, kinds) as writer:
        for page in chunks(found, _PAGE):
            columns = [{**row, "reward": row["after"], "body": _exported(row)} for row in page]
            writer.write_table(pa.Table.from_pylist([{name: row[name] for name in PARQUET} for row in columns], schema=kinds))
            count += len(page)
    return count


def _exported(row: dict[str, Any]) -> str:
    return json.dumps(scrub_json(rows.exported(json.loads(row["body"]), row)), allow_nan=False)


def _as_session(row: dict[str, Any]) -> str:
    return json.dumps(scrub_json(as_session(json.loads(row["body"]), row)), allow_nan=False)


@contextmanager
def _export(path: Path) -> Iterator[Path]:
    """The temporary file of an export; its folder is made where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(path, error) from None
    with replacing(path) as temporary:
        yield temporary


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if raw.strip():
                where = f"{path}, line {number}"
                yield where, _document(raw, where)


def _parquet_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise MissingExtra("Parquet", "parquet") from None
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(PARQUET) - set(file.schema_arrow.names))
            if missing:
                raise DataError(f"{path}: has no column {', '.join(missing)}; import what `gepa-atlas traces export` has written")
            number = 0
            for batch in file.iter_batches(batch_size=_PAGE, columns=list(PARQUET)):
                for row in batch.to_pylist():
                    number += 1
                    where = f"{path}, row {number}"
                    line = _document(str(row["body"]).encode(), where)
                    yield where, line
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: is no Parquet file that can be read ({' '.join(str(error).split())[:200]})") from None


def _document(raw: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_number, object_pairs_hook=_once)
        json.dumps(found, allow_nan=False)  # 1e999 is read as infinity
    except UnicodeDecodeError:
        raise DataError(f"{where}: is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON object that can be kept ({error})") from None
    if _too_deep(found):
        raise DataError(f"{where}: is nested more than {_DEEPEST} levels deep")
    if not isinstance(found, dict):
        raise DataError(f"{where}: holds {type(found).__name__}, not a JSON object")
    return found


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [x for v in level for x in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())]
        if not level:
            return False
    return True


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
