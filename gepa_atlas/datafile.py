"""Rows of a data file with the place each comes from: JSONL, a JSON list, CSV or TSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gepa_atlas.errors import DataError

_CSV_FIELD = 64 * 1024 * 1024  # characters; Python's default of 128 kB refuses long contexts


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it was written, and where: `file:line`, or `file item n`."""

    place: str
    value: Any


def shown(columns: Mapping[Any, Any]) -> str:
    names = [str(name) for name in columns]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none"


def read_rows(path: Path) -> list[Row]:
    """Every record of the file. Raises DataError naming file and line."""
    readers: dict[str, Callable[[Path, str], list[Row]]] = {
        ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv,
    }  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown data format {path.suffix or '(no suffix)'}; use {', '.join(readers)}")
    rows = reader(path, _read(path))
    if not rows:
        raise DataError(f"{path}: no examples in it; a run needs some, a few dozen to learn anything")
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such data file; paths are relative to the configuration") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a directory; give the path of a data file in it") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse(text: str, place: str, first_line: int) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        at = f"{place}:{first_line + error.lineno - 1}"
        raise DataError(f"{at}: not valid JSON ({error.msg} at column {error.colno}); one JSON object per example") from None
    except ValueError as error:
        raise DataError(f"{place}:{first_line}: {error}; use null or text") from None
    except RecursionError:
        raise DataError(f"{place}:{first_line}: nested too deeply; flatten it") from None


def _jsonl(path: Path, text: str) -> list[Row]:
    # Split at "\n" alone: str.splitlines also cuts at U+2028, which JSON allows inside a string.
    lines = enumerate(text.split("\n"), 1)
    return [Row(f"{path}:{n}", _parse(line, str(path), n)) for n, line in lines if line.strip()]


def _json(path: Path, text: str) -> list[Row]:
    if not text.strip():
        return []
    value = _parse(text, str(path), 1)
    if not isinstance(value, list):
        raise DataError(f"{path}: holds a {type(value).__name__}; a .json data file is a list of objects")
    return [Row(f"{path} item {n}", item) for n, item in enumerate(value, 1)]


def _csv(path: Path, text: str) -> list[Row]:
    csv.field_size_limit(_CSV_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    rows: list[Row] = []
    try:
        names = [name.strip() for name in reader.fieldnames or []]  # "question, answer" is two plain names
        reader.fieldnames = names
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DataError(f"{path}:1: the column {min(twice)!r} is there twice; rename one")
        for values in reader:
            place = f"{path}:{reader.line_num}"
            if None in values or None in values.values():
                found = len(values[None]) + len(names) if None in values else sum(v is not None for v in values.values())
                raise DataError(f"{place}: {found} fields where the header has {len(names)}; quote fields that contain commas")
            rows.append(Row(place, values))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV ({error})") from None
    return rows
