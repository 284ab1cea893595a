"""The files of a hand-off: written beside their place, row by row, and moved there together when all of them are whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from gepa_atlas.errors import ContractError, MissingExtra
from gepa_atlas.handoff.schema import ROWS, Row
from gepa_atlas.handoff.workspace import sha256_file
from gepa_atlas.secrets import MASK, scrub_json
from gepa_atlas.store.exports import refused, sync, write_json

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["jsonl", "both"]
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}  # JSON allows them inside a string; some readers end a line there
_BATCH = 512  # rows of a Parquet row group in memory at once


class Files:
    """A set of files that appear together: leave the block without an error, and each replaces its predecessor; with one, none does."""

    def __init__(self, folder: Path, format: Format, never: frozenset[str]) -> None:
        """never: ids of test tasks. A row about one, outside tasks.jsonl, is a defect of ours and ends everything."""
        self.folder, self._format, self._never = folder, format, never
        self.digests: dict[str, str] = {}  # file name -> sha256
        self.rows: dict[str, int] = {}  # set -> rows

    def __enter__(self) -> Self:
        for left in self.folder.glob(".export-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        try:
            self._place = Path(tempfile.mkdtemp(prefix=".export-", dir=self.folder))
        except OSError as error:
            raise refused(self.folder, error) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._publish()
        finally:
            shutil.rmtree(self._place, ignore_errors=True)
        if isinstance(error, OSError):
            raise refused(self.folder, error) from None

    def write(self, name: str, rows: Iterable[Row]) -> None:
        """A set of rows: NAME.jsonl always, NAME.parquet as `format` says. Secrets stay at home."""
        clean = (self._clean(name, row) for row in rows)
        if self._format == "jsonl":
            self.rows[name] = self._jsonl(name, clean)
            return
        with _Parquet(self._place / f"{name}.parquet", ROWS[name]) as table:
            self.rows[name] = self._jsonl(name, table.along(clean))
        self.digests[f"{name}.parquet"] = _synced(self._place / f"{name}.parquet")

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        write_json(self._place / name, value)
        self.digests[name] = sha256_file(self._place / name)

    def _jsonl(self, name: str, rows: Iterable[dict[str, Any]]) -> int:
        count = 0
        with (self._place / f"{name}.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS) + "\n")
                count += 1
        self.digests[f"{name}.jsonl"] = _synced(self._place / f"{name}.jsonl")
        return count

    def _clean(self, name: str, row: Row) -> dict[str, Any]:
        value = row.model_dump(mode="json")
        if name not in ("tasks", "prompts") and (value["task_id"] in self._never or value.get("split") == "test"):
            raise ContractError(f"a row of {name} is about test task {value['task_id']!r}; test is never exported")
        clean: dict[str, Any] = scrub_json(value)
        if name == "traces" and clean != value:
            clean["redactions"] += json.dumps(clean).count(MASK) - json.dumps(value).count(MASK)
        return clean

    def _publish(self) -> None:
        names = [f"{name}{ending}" for name in ROWS for ending in (".jsonl", ".parquet")]
        for name in names:
            if name not in self.digests:
                (self.folder / name).unlink(missing_ok=True)  # of an earlier export
        for name in sorted(self.digests, key=lambda n: n == "manifest.json"):  # the manifest last
            os.replace(self._place / name, self.folder / name)
        sync(self.folder)


class _Parquet:
    """Rows to a Parquet file on their way to another. Mappings are JSON strings; messages are lists of {role, content}."""

    def __init__(self, path: Path, model: type[Row]) -> None:
        self._path, self._model = path, model
        self._batch: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingExtra("handoff.format: both", "parquet") from None
        self._schema = _arrow_schema(self._model)
        self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def along(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            self._batch.append(row)
            if len(self._batch) == _BATCH:
                self._flush()
            yield row

    def _flush(self) -> None:
        import pyarrow as pa

        flat = [{f.name: _cell(row[f.name], f.type) for f in self._schema} for row in self._batch]
        self._writer.write_table(pa.Table.from_pylist(flat, schema=self._schema))
        self._batch = []


def _arrow_schema(model: type[Row]) -> pa.Schema:
    """Columns from the model's own JSON schema: texts, numbers, truth values, messages; everything else is a JSON string."""
    import pyarrow as pa

    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    kinds = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    fields = []
    for name, told in model.model_json_schema()["properties"].items():
        options = [o for o in told.get("anyOf", [told]) if o.get("type") != "null"]
        kind = options[0].get("type") if len(options) == 1 else None
        items = options[0].get("items", {}) if kind == "array" else {}
        if str(items.get("$ref", "")).endswith("/Turn"):
            fields.append(pa.field(name, turns))
        elif items.get("type") == "string":
            fields.append(pa.field(name, pa.list_(pa.string())))
        else:
            fields.append(pa.field(name, kinds.get(kind or "", pa.string())))
    return pa.schema(fields)


def _cell(value: Any, kind: pa.DataType | None) -> Any:
    """The value of a column. Half a character (a lone surrogate) is written as its escape, as in the JSON lines."""
    if isinstance(value, dict | list) and str(kind) == "string":
        return json.dumps(value, sort_keys=True)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [{k: _cell(v, None) for k, v in item.items()} if isinstance(item, dict) else _cell(item, None) for item in value]
    return value


def _synced(path: Path) -> str:
    with path.open("rb") as file:
        os.fchmod(file.fileno(), 0o600)  # as private as the run it comes from
        os.fsync(file.fileno())
    return sha256_file(path)


__all__ = ["Files", "Format"]
