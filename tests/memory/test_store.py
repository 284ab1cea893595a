"""The store, on SQLite and on a real PostgreSQL: what goes in comes out once, filters use indices, states move as they may."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from gepa_atlas.errors import AtlasError, ConfigError, RunDamaged
from gepa_atlas.memory import query, rows
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.query import Filter
from gepa_atlas.memory.review import review
from gepa_atlas.memory.store import Memory, states

from .lines import lesson_line, session_line

Open = Callable[..., Memory]


def trace(number: int, delta: float = 1.0, operation: str = "shop", run_id: str = "r1") -> rows.Trace:
    return rows.lesson(lesson_line(f"e{number}", after=delta), run_id, operation, 1000.0 + number)


def test_what_goes_in_comes_out_once(opened: Open) -> None:
    memory = opened()
    traces = [trace(n) for n in range(1203)]
    assert memory.add(traces) == 1203
    assert memory.add([*traces, trace(5000)]) == 1
    assert memory.add([trace(6000), trace(6000)]) == 1
    assert [row["id"] for row in query.lines(memory, Filter(), None)] == [t.id for t in [*traces, trace(5000), trace(6000)]]
    shown = query.trace(memory, traces[0].id)
    assert shown["line"] == lesson_line("e0")
    assert [(a["side"], a["input_tokens"]) for a in shown["attempts"]] == [("baseline", 12), ("second", 12)]
    assert [(r["side"], r["judge"], r["value"]) for r in shown["rewards"]] == [("after", "exact", 1.0), ("before", "exact", 0.0)]


def test_filters_choose_and_order(opened: Open) -> None:
    memory = opened()
    memory.add([trace(n, delta=n / 10) for n in range(11)])
    memory.add([trace(20, operation="bank"), rows.lesson(lesson_line("e30", after=None), "r2", "shop", 5.0)])
    memory.add([rows.session(session_line(), "sdk", 7.0)])

    def found(which: Filter, limit: int = 100) -> list[str]:
        return [row["example_id"] or row["question"] for row in query.page(memory, which, limit)]

    assert found(Filter(operation="shop", min_delta=0.85)) == ["e10", "e9"]
    assert found(Filter(max_delta=0.15)) == ["e1", "e0"]
    assert found(Filter(since=1009.0, until=1010.0)) == ["e10", "e9"]
    assert found(Filter(), 2) == ["Reset the password", "e20"], "the session's own time is the newest"
    assert found(Filter(failed=True)) == ["e30"]
    assert found(Filter(kind="session", min_reward=0.8)) == ["Reset the password"]
    assert found(Filter(run_id="r2")) == ["e30"]
    assert found(Filter(states=("approved",))) == ["Reset the password"]
    counted = {row["operation"]: row for row in query.counts(memory, Filter())}
    assert counted["shop"]["traces"] == 12 and counted["shop"]["unscored"] == 1 and counted["helpdesk-key"]["approved"] == 1
    judged = {row["judge"]: row for row in query.judges(memory, Filter(operation="shop"))}
    assert judged["exact"]["scored"] == 23 and judged["exact"]["missing"] == 1


PAGES = {
    "newest": Filter(),
    "of an operation": Filter(operation="op3"),
    "the best of an operation": Filter(operation="op3", min_delta=0.5),
    "the worst of an operation": Filter(operation="op3", max_delta=-0.5),
    "rewarded": Filter(operation="op3", min_reward=0.9),
    "the best": Filter(min_delta=0.9),
    "since": Filter(operation="op3", since=2000.0),
    "to review": Filter(operation="op3", states=("pending",)),
    "golden": Filter(states=("golden",)),
    "of a run": Filter(run_id="r7"),
    "the best lately": Filter(operation="op3", min_delta=0.5, since=2000.0),
    "golden and good": Filter(operation="op3", min_delta=0.5, states=("golden",)),
    "rewarded lately": Filter(min_reward=0.5, since=2000.0, until=3000.0),
}


@pytest.mark.parametrize("which", PAGES.values(), ids=PAGES.keys())
def test_a_page_is_read_off_an_index(tmp_path: Path, which: Filter) -> None:
    with Memory.open(str(tmp_path / "m.db")) as memory:
        question = query.selected(which, query.SHOWN, 20).compile(memory.engine, compile_kwargs={"literal_binds": True})
        with memory.engine.connect() as connection:
            plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {question}")]
    assert len(plan) == 1 and "USING INDEX" in plan[0], plan


def test_states_move_as_they_may(opened: Open) -> None:
    memory = opened()
    traces = [trace(n) for n in range(4)]
    memory.add(traces)
    one, two, three, four = (t.id for t in traces)
    assert review(memory, [one, two], "approved", "read") == sorted([one, two])
    assert review(memory, [two], "quarantined") == [two]
    assert review(memory, [two], "quarantined") == [], "it is there already"
    with pytest.raises(ConfigError, match="golden is earned"):
        review(memory, [one], "golden")
    with pytest.raises(ConfigError, match="no such trace"):
        review(memory, [three, "f" * 20], "approved")
    assert memory.states([one, two, three, four, "nobody"]) == {one: "approved", two: "quarantined", three: "pending", four: "pending"}
    assert [(r["was"], r["state"], r["note"]) for r in query.trace(memory, one)["reviews"]] == [("pending", "approved", "read")]
    with memory.engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(s.reviews)).scalar() == 3


def test_the_hand_off_asks_for_states(url: str, opened: Open) -> None:
    memory = opened()
    memory.add([trace(1)])
    review(memory, [trace(1).id], "approved")
    id_ = rows.trace_id("r1", "c0", "e1", 0)
    assert states(url, [id_, "unknown"]) == {id_: "approved"}


def test_an_sqlite_store_is_private_and_logs_ahead(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "memory.db"
    with Memory.open(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def refusal(url: str, **how: bool) -> str:
    with pytest.raises(AtlasError) as caught:
        Memory.open(url, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "traces import RUN" in refusal(str(tmp_path / "none.db"), create=False)
    assert not (tmp_path / "none.db").exists()
    assert "mysql" in refusal("mysql://host/db")
    assert "empty" in refusal(" ")
    assert "names no file" in refusal("sqlite://")
    assert "no address" in refusal("http://[::1/x")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as plain:
        plain.execute("CREATE TABLE mine (x)")
    assert "not a memory" in refusal(str(other))
    assert "directory" in refusal(str(tmp_path)).lower()
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"this is not a database at all, by any means" * 200)
    with pytest.raises(RunDamaged, match="no SQLite file"):
        Memory.open(str(noise))


def test_a_server_that_is_not_there_shows_no_password(postgres: object) -> None:
    said = refusal("postgresql://me:hunter22hunter22@127.0.0.1:9/none")
    assert "127.0.0.1" in said and "hunter22" not in said
    for address in ("me@127.0.0.1:9/none?password=hunter22%21", "me:a@hunter22@127.0.0.1:9/none", "me:a@b/hunter22@127.0.0.1:9/none"):
        assert "hunter22" not in refusal(f"postgresql://{address}"), address


def test_rewards_that_are_no_rewards_never_become_zero() -> None:
    for score, why in ((None, "unscored"), ("0.5", "garbled"), (True, "garbled"), (1.5, "garbled"), (float("nan"), "garbled")):
        line = session_line(session_reward={"score": score}, reward_stats=None, reward_summary=None)
        found = rows.session(line, "sdk", 0.0) if score == score else None
        if found is not None:
            assert (found.after, found.failure) == (None, why), score
    assert rows.session(session_line(score=0.0), "sdk", 0.0).after == 0.0
    for value in (float("inf"), True, "1", 2.0):
        with pytest.raises(AtlasError, match=r"no lesson|reward"):
            rows.lesson(lesson_line("e", after=1.0) | {"after": {"value": value, "parts": [], "missing": None}}, "r", "o", 0.0)
