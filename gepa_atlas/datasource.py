"""Rows of examples that lie elsewhere than in a file: an HTTP API, firing Prometheus alerts, ITBench scenarios, a hub dataset.

A source that cannot be read is a DataError: never an empty list, never a placeholder.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, field_validator

from gepa_atlas import wire
from gepa_atlas.datafile import Row
from gepa_atlas.errors import CallError, DataError, MissingExtra
from gepa_atlas.settings import Settings

T = TypeVar("T")


class Address(Settings):
    url: str
    timeout: float = Field(default=30.0, gt=0)  # seconds
    headers: dict[str, str] = Field(default_factory=dict)  # values may hold ${ENV}
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=1)

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("the url must be an http:// or https:// address")
        wire.check_address(url)
        return url


class HttpSource(Address):
    """A GET request that answers JSON. `items_path` is the dotted path to the list; without it the document itself is the list.
    `data.columns` says which (dotted) field of an item is which."""

    items_path: str = ""


class PrometheusSource(Address):
    """Alerts that are firing now, one question each: name, description and the other labels as context. There is no gold answer."""

    url: str = "http://127.0.0.1:9090/api/v1/alerts"


class ItbenchSource(Settings):
    """ITBench incidents: `specs/NAME.yaml` with `ground_truths/NAME.yaml` beside it."""

    scenarios_dir: str


class HubSource(Settings):
    """A dataset by name, through the package `datasets`. No code of a dataset is run."""

    name: str
    config: str | None = None
    split: str = "train"
    data_files: str | None = None
    revision: str | None = None


# Names that ATLAS gave to two datasets, with where they are and what their columns may be called.
NAMED: dict[str, tuple[HubSource, dict[str, tuple[str, ...]]]] = {
    "arc-atlas-rl": (
        HubSource(name="Arc-Intelligence/Arc-ATLAS-Teach-v1", data_files="curriculum/arc_atlas_teach_rl.jsonl"),
        {"question": ("prompt", "problem_text", "question", "input"), "answer": ("ground_truth", "answer", "solution")},
    ),
    "gsm8k-zh": (HubSource(name="meta-math/GSM8K_zh"), {"question": ("question",), "answer": ("answer_only",)}),
}


def http_rows(source: HttpSource) -> list[Row]:
    where = wire.place(source.url)
    value, path = _fetch(source), source.items_path
    for key in path.split(".") if path else ():
        if not isinstance(value, dict) or key not in value:
            known = f"has {', '.join(list(value)[:12])}" if isinstance(value, dict) else f"is a {type(value).__name__}"
            raise DataError(f"data.http {where}: there is no {key!r} on the way to items_path {path!r}; what is there {known}")
        value = value[key]
    if not isinstance(value, list):
        raise DataError(f"data.http {where}: a {type(value).__name__} where the list of items belongs; set items_path to it")
    return [Row(f"{where} item {n}", item) for n, item in enumerate(value, 1)]


def prometheus_rows(source: PrometheusSource) -> list[Row]:
    where = wire.place(source.url)
    body = _fetch(source)
    try:
        alerts = [alert for alert in body["data"]["alerts"] if alert["state"] == "firing"]
        rows = []
        for alert in alerts:
            labels, said = dict(alert["labels"]), dict(alert.get("annotations") or {})
            name = labels.pop("alertname", "unnamed alert")
            text = said.get("description") or said.get("summary") or "no description"
            rows.append({"question": f"{name}: {text}", "context": json.dumps(labels, ensure_ascii=False, sort_keys=True)})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"data.prometheus {where}: not an answer of Prometheus's alerts API ({type(error).__name__}: {error})") from None
    if not rows:
        raise DataError(f"data.prometheus {where}: no alert is firing, so there is nothing to learn from; save past alerts to a file")
    return [Row(f"{where} alert {n}", row) for n, row in enumerate(rows, 1)]


def itbench_rows(source: ItbenchSource, base_dir: Path, notes: list[str]) -> list[Row]:
    directory = base_dir / source.scenarios_dir
    specs = sorted((directory / "specs").glob("*.yaml"))
    if not specs:
        raise DataError(f"data.itbench: {directory / 'specs'} has no .yaml file; scenarios_dir is the directory above specs/")
    rows, without = [], []
    for path in specs:
        truth = directory / "ground_truths" / path.name
        if truth.exists():
            rows.append(Row(str(path), _incident(path, truth)))
        else:
            without.append(path.stem)
    if without:
        notes.append(f"{len(without)} of {len(specs)} incidents have no ground truth and are left out: {', '.join(without[:5])}")
    return rows


def hub_rows(source: HubSource | str) -> list[Row]:
    columns: Mapping[str, tuple[str, ...]] = {}
    if isinstance(source, str):
        source, columns = NAMED[source] if source in NAMED else (HubSource(name=source), {})
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtra(f"data.dataset {source.name!r}", "datasets")
    datasets: Any = importlib.import_module("datasets")
    chosen = {"data_files": source.data_files, "revision": source.revision}
    try:
        rows = list(datasets.load_dataset(source.name, source.config, split=source.split, **chosen))
    except Exception as error:  # the border to a library that raises what its file systems and its network raise
        words = " ".join(str(error).split())[:300]
        raise DataError(f"data.dataset {source.name!r} cannot be loaded: {type(error).__name__}: {words}; or save it to a file") from None
    return [Row(f"{source.name} row {n}", _renamed(row, columns)) for n, row in enumerate(rows, 1)]


def _renamed(row: Mapping[str, Any], columns: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """The row under our names where the set has names of its own; otherwise as it is."""
    if not columns:
        return dict(row)
    found = {field: next((row[name] for name in names if row.get(name)), None) for field, names in columns.items()}
    return {field: value for field, value in found.items() if value is not None}


def _incident(spec_path: Path, truth_path: Path) -> dict[str, Any]:
    spec, truth = _yaml(spec_path), _yaml(truth_path)
    try:
        meta = spec["metadata"]
        lines = [f"{what.capitalize()}: {meta[key]}" for what, key in (("incident", "name"), ("platform", "platform")) if key in meta]
        lines += [f"Complexity: {meta['complexity']}"] if "complexity" in meta else []
        lines += [
            f"Fault configuration: {json.dumps(fault, ensure_ascii=False, default=str)}" for fault in spec.get("spec", {}).get("faults", [])
        ]
        answer = {
            "entities": [{"id": group["id"], "root_cause": bool(group.get("root_cause", False))} for group in truth.get("groups", [])],
            "propagations": [
                {key: step.get(key, "") if key in ("condition", "effect") else step[key] for key in _STEP}
                for step in truth.get("propagations", [])
            ],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{spec_path}: not an ITBench incident with its ground truth ({type(error).__name__}: {error})") from None
    return {"id": spec_path.stem, "question": "\n".join(lines), "answer": json.dumps(answer, ensure_ascii=False, sort_keys=True)}


_STEP = ("source", "target", "condition", "effect")


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None


def _fetch(source: Address) -> Any:
    """The JSON document at an address; every failure is a DataError."""
    where = wire.place(source.url)

    async def get() -> Any:
        client = await wire.client()
        headers = {"accept": "application/json"} | wire.reveal_headers(source.headers, "data.headers")
        request = client.build_request("GET", source.url, headers=headers)
        return wire.json_body(await wire.send(client, request, max_bytes=source.max_bytes, timeout=source.timeout), where)

    try:
        return _apart(lambda: asyncio.run(get()))
    except CallError as error:
        raise DataError(f"data: {error}; check the address, or save the examples to a file") from None


def _apart(work: Callable[[], T]) -> T:
    """The result of `work` on a thread of its own: whoever loads examples may have an event loop running."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
