"""Out and in again loses nothing: any JSON that a session or a lesson may hold, in both forms, through both kinds of store."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gepa_atlas.errors import AtlasError, DataError
from gepa_atlas.memory import exchange, query, rows
from gepa_atlas.memory.query import Filter
from gepa_atlas.memory.review import review
from gepa_atlas.memory.store import Memory

from .lines import lesson_line, session_line

Open = Callable[..., Memory]
TEXT = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates and NUL too: JSON has them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SESSIONS = st.builds(
    lambda known, more: {**session_line(), **known, **more},
    st.fixed_dictionaries({}, optional={name: JSON for name in session_line() if name not in ("task", "final_answer")}),
    st.dictionaries(TEXT.filter(lambda name: name not in session_line() and name not in ("example", "candidate")), JSON, max_size=3),
)
LESSONS = st.builds(
    lambda n, after, more: {**lesson_line(f"e{n}", after=after), **more},
    st.integers(0, 10**6),
    st.none() | st.floats(0, 1),
    st.dictionaries(TEXT.filter(lambda name: name not in lesson_line("e") and name != "memory"), JSON, max_size=2),
)


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


@functools.cache
def blank() -> bytes:
    """An empty store, made once."""
    with tempfile.TemporaryDirectory() as place:
        Memory.open(f"{place}/m.db").close()
        return Path(place, "m.db").read_bytes()


def through(lines: list[dict[str, Any]], suffix: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What comes out of a second store that took in what the first one gave, and what the first one gave."""
    as_file = exchange.as_parquet if suffix == ".parquet" else exchange.as_jsonl
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        for name in ("one.db", "two.db"):
            (where / name).write_bytes(blank())
        with Memory.open(str(where / "one.db")) as one, Memory.open(str(where / "two.db")) as two:
            exchange.import_file(one, write(where / "in.jsonl", lines), "shop")
            as_file(query.lines(one, Filter(), None), where / f"out{suffix}")
            exchange.import_file(two, where / f"out{suffix}", "another name")
            exchange.as_jsonl(query.lines(one, Filter(), None), where / "first.jsonl")
            exchange.as_jsonl(query.lines(two, Filter(), None), where / "second.jsonl")
            total, new = exchange.import_file(one, where / f"out{suffix}", "shop")
            assert (total, new) == (len(lines), 0), "what a store gave is nothing new to it"
            return read(where / "second.jsonl"), read(where / "first.jsonl")


def same(a: Any, b: Any) -> bool:
    return json.dumps(a) == json.dumps(b)  # 1 is not 1.0, and keys keep their order


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SESSIONS, min_size=1, max_size=4), st.sampled_from([".jsonl", ".parquet"]))
def test_sessions_come_out_as_they_went_in(lines: list[dict[str, Any]], suffix: str) -> None:
    second, first = through(lines, suffix)
    assert same(first, lines)
    assert same(second, lines)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LESSONS, min_size=1, max_size=4, unique_by=lambda line: line["example"]["id"]), st.sampled_from([".jsonl", ".parquet"]))
def test_lessons_come_out_as_they_went_in(lines: list[dict[str, Any]], suffix: str) -> None:
    second, first = through(lines, suffix)
    assert same(first, second)
    for line, out in zip(lines, first, strict=True):
        added = out["memory"]["added"]
        assert same({key: value for key, value in out.items() if key != "memory" and key not in added}, line)


def test_a_file_may_hold_a_session_twice(tmp_path: Path) -> None:
    twice = [session_line(), session_line(), session_line("another")]
    second, _ = through(twice, ".jsonl")
    assert same(second, twice)


def test_on_postgresql_too(opened: Open, tmp_path: Path) -> None:
    lines = [session_line(odd="nul \x00 and \ud800", deep={"\x00": [1e300, -0.0]}), lesson_line("e1", question="nul \x00?")]
    memory = opened()
    assert exchange.import_file(memory, write(tmp_path / "in.jsonl", lines)) == (2, 2)
    exchange.as_jsonl(query.lines(memory, Filter(), None), tmp_path / "out.jsonl")
    out = read(tmp_path / "out.jsonl")
    assert same(out[0], lines[0]) and out[1]["example"] == lines[1]["example"]


def test_what_the_hand_off_reads(opened: Open, tmp_path: Path) -> None:
    from gepa_atlas.handoff.lines import lesson, read_lines

    memory = opened()
    exchange.import_file(memory, write(tmp_path / "in.jsonl", [lesson_line(f"e{n}") for n in range(4)]))
    ids = query.ids(memory, Filter())
    review(memory, ids[:3], "approved")
    review(memory, ids[2:3], "quarantined")
    exchange.as_jsonl(query.lines(memory, Filter(states=("approved", "golden")), None), tmp_path / "good.jsonl")
    good = [lesson(found) for found in read_lines(tmp_path / "good.jsonl")]
    assert [line["example"]["id"] for line in good] == ["e0", "e1"]
    assert {line["review_status"] for line in good} == {"approved"} and len({line["run_id"] for line in good}) == 1


def test_lessons_as_session_traces(opened: Open, tmp_path: Path) -> None:
    """Every field of the SDK's line; what reads them finds the reward, and no reward where there was none."""
    from gepa_atlas.handoff import sessions

    memory = opened()
    lines = [lesson_line("e0", after=0.5), lesson_line("e1", after=None)]
    exchange.import_file(memory, write(tmp_path / "in.jsonl", lines))
    exchange.as_jsonl(query.lines(memory, Filter(), None), tmp_path / "atlas.jsonl", sessions=True)
    out = read(tmp_path / "atlas.jsonl")
    assert all(line.keys() == session_line().keys() for line in out)
    found = [rows.session(line, "x", 0.0) for line in out]
    assert [(t.after, t.failure, t.operation, t.state) for t in found] == [(0.5, "", "in", "pending"), (None, "unscored", "in", "pending")]
    assert [t.created for t in found] == pytest.approx([row["created"] for row in query.page(memory, Filter(), 2)])
    handed = [placed.line for placed in sessions.lessons(tmp_path / "atlas.jsonl", 0.1)]
    assert [line["after"]["value"] for line in handed] == [0.5, None] and handed[0]["guidance"]["text"] == "Say gold."
    assert exchange.import_file(memory, tmp_path / "atlas.jsonl") == (2, 2)


def test_a_changed_review_leaves_and_golden_does_not_come_in(tmp_path: Path) -> None:
    with Memory.open(str(tmp_path / "m.db")) as memory:
        lines = [session_line(review_status="golden"), session_line("b", review_status=None)]
        exchange.import_file(memory, write(tmp_path / "in.jsonl", lines))
        golden, other = query.ids(memory, Filter())
        assert memory.states([golden, other]) == {golden: "approved", other: "pending"}
        review(memory, [golden], "quarantined")
        exchange.as_jsonl(query.lines(memory, Filter(), None), tmp_path / "out.jsonl")
        assert [line["review_status"] for line in read(tmp_path / "out.jsonl")] == ["quarantined", None]


BAD = {
    "not JSON": b"{",
    "not an object": b"[1]",
    "NaN": b'{"task": "t", "steps": [], "x": NaN}',
    "infinity": b'{"task": "t", "steps": [], "x": 1e999}',
    "a key twice": b'{"task": "t", "steps": [], "x": 1, "x": 2}',
    "not UTF-8": b'{"task": "\xff", "steps": []}',
    "neither kind": b'{"question": "q"}',
    "half a lesson": b'{"example": {"id": "e"}, "candidate": "c"}',
    "a reward of 2": json.dumps(lesson_line("e") | {"after": {"value": 2, "parts": [], "missing": None}}).encode(),
    "deep": b'{"task": "t", "steps": ' + b"[" * 300 + b"]" * 300 + b"}",
    "very deep": b'{"task": "t", "steps": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_a_bad_line_is_named_and_nothing_is_written(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(json.dumps(session_line()).encode() + b"\n\n" + raw + b"\n")
    with Memory.open(str(tmp_path / "m.db")) as memory:
        with pytest.raises(DataError, match=r"in\.jsonl, line 3: ") as caught:
            exchange.import_file(memory, path)
        assert "\n" not in str(caught.value)
        assert query.ids(memory, Filter()) == []


def damaged(draw: st.DrawFn, value: Any) -> Any:
    """`value` with something else somewhere in it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: damaged(draw, value[key])} if draw(st.integers(0, 5)) else {k: v for k, v in value.items() if k != key}
    return draw(JSON | st.just(2**70) | st.just(1e308))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_lines_are_kept_whole_or_refused(data: st.DataObject) -> None:
    whole = lesson_line("e0") if data.draw(st.booleans()) else session_line()
    line = data.draw(st.composite(lambda draw: damaged(draw, whole))())
    with tempfile.TemporaryDirectory() as place:
        Path(place, "m.db").write_bytes(blank())
        path = Path(place, "in.jsonl")
        path.write_text(json.dumps(line) + "\n")
        with Memory.open(f"{place}/m.db") as memory:
            try:
                exchange.import_file(memory, path, "x")
            except DataError as error:
                assert "line 1" in str(error) and "\n" not in str(error)
                return
            (row,) = query.lines(memory, Filter(), None)
            assert same(json.loads(row["body"]), {key: value for key, value in line.items() if key != "memory"})


def test_a_foreign_parquet_file_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    with Memory.open(str(tmp_path / "m.db")) as memory:
        for name, why in (("x", "no column"), ("noise", "no Parquet file")):
            with pytest.raises(DataError, match=why):
                exchange.import_file(memory, tmp_path / f"{name}.parquet")


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")

    def broken() -> Any:
        yield {"kind": "session", "state": "pending", "given_state": "pending", "body": json.dumps(session_line())}
        raise DataError("the store went away")

    with pytest.raises(AtlasError):
        exchange.as_jsonl(broken(), path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
