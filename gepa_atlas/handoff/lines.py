"""Lines of a traces.jsonl, one at a time: the file is never held in memory. Each is checked before it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gepa_atlas.errors import DataError
from gepa_atlas.types import digest

Line = dict[str, Any]  # `Lesson.to_json`, and whatever a later format adds

KNOWN = frozenset({
    "example", "candidate", "sample", "protocol", "baseline", "guidance", "second", "before", "after", "delta", "teacher_usage", "requests",
    "support",
})  # fmt: skip
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Placed:
    """A line and where it stands: `file:line`."""

    place: str
    line: Line


def read_lines(path: Path) -> Iterator[Placed]:
    """Every JSON object of the file, in order. DataError names file and line."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield Placed(f"{path}:{number}", _parsed(raw, f"{path}:{number}"))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; give the traces.jsonl of a run, or its directory") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


@contextmanager
def understood(place: str, next_step: str = "export the traces again") -> Iterator[None]:
    """Around what trusts the shape of a document: what does not have it is a DataError that names the place."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{place}: not what a run writes ({type(error).__name__}: {said:.200}); {next_step}") from None


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parsed(raw: bytes, place: str) -> Line:
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not a JSON object ({error}); export the traces again") from None
    if not isinstance(value, dict):
        raise DataError(f"{place}: a JSON {type(value).__name__} where each line is an object; export the traces again")
    return value


def lesson(found: Placed) -> Line:
    """The line, checked to be a lesson. DataError says which field is wrong."""
    line, place = found.line, found.place
    example = _of(line, "example", dict, place)
    for name in ("id", "question"):
        _of(example, name, str, f"{place}: example")
    for name in ("context", "spec"):
        if not isinstance(example.get(name, ""), str):
            raise DataError(f"{place}: example.{name} is {example[name]!r:.60}; it is text, or left out")
    if example.get("split") not in _SPLITS:
        raise DataError(f"{place}: example.split is {example.get('split')!r}; it is train, val or test")
    answers = example.get("answers", [])
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise DataError(f"{place}: example.answers is {answers!r:.60}; it is a list of texts")
    for name, kind in (("candidate", str), ("protocol", str), ("guidance", dict)):
        _of(line, name, kind, place)
    if not isinstance(line["guidance"].get("text", ""), str):
        raise DataError(f"{place}: guidance.text is {line['guidance']['text']!r:.60}; it is text, or left out")
    if type(line.get("sample")) is not int or line["sample"] < 0:
        raise DataError(f"{place}: sample is {line.get('sample')!r}; it is a count from 0")
    for name in ("baseline", "second"):
        attempt = _of(line, name, dict, place)
        if not isinstance(attempt.get("output", 0), str | None):
            raise DataError(f"{place}: {name}.output is {attempt.get('output', 'not there')!r:.60}; it is text or null")
    values = [_score(line, name, place) for name in ("before", "after")]
    _check_delta(line.get("delta"), values, place)
    return line


def _of(holder: Line, name: str, kind: type, place: str) -> Any:
    value = holder.get(name)
    if not isinstance(value, kind):
        raise DataError(f"{place}: {name} is {value!r:.60}; a lesson has a {kind.__name__} there: is this the traces.jsonl of a run?")
    return value


def _score(line: Line, name: str, place: str) -> float | None:
    reward = _of(line, name, dict, place)
    value = reward.get("value", "not there")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise DataError(f"{place}: {name}.value is {value!r:.40}; a reward is a number from 0 to 1, or null when there is none")
    return float(value)


def _check_delta(given: Any, values: list[float | None], place: str) -> None:
    before, after = values
    delta = None if before is None or after is None else after - before
    if given is not None and (isinstance(given, bool) or not isinstance(given, int | float)):
        raise DataError(f"{place}: delta is {given!r:.40}; it is a number or null")
    if (given is None) != (delta is None) or (given is not None and delta is not None and not math.isclose(given, delta, abs_tol=1e-6)):
        raise DataError(
            f"{place}: delta is {given!r:.40} and after less before is {delta!r}; the line was changed, export the traces again"
        )


def trace_id(line: Line) -> str:
    """Hash of what was taught and what came of it; clocks and costs are not part of it."""
    content = [
        line["example"]["id"], line["candidate"], line["sample"], line["protocol"], line["baseline"]["output"], line["guidance"],
        line["second"]["output"], line["before"]["value"], line["after"]["value"], line.get("run_id", ""),
    ]  # fmt: skip
    return digest(content, 24)


def extra(line: Line) -> Line:
    """What the line says beyond a lesson."""
    return {name: value for name, value in line.items() if name not in KNOWN}
