"""Older stores come up to date with what is in them; newer ones are refused; the tables are those that the code speaks of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import gepa_atlas.memory
from gepa_atlas.errors import RunChanged
from gepa_atlas.memory import query, rows
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.engine import _address, writing
from gepa_atlas.memory.store import Memory

from .lines import lesson_line

Open = Callable[..., Memory]


def config() -> Config:
    found = Config()
    found.set_main_option("script_location", str(Path(gepa_atlas.memory.__file__).parent / "migrations"))
    return found


def test_the_tables_are_those_of_the_code(opened: Open) -> None:
    with opened().engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, s.metadata) == []
    assert ScriptDirectory.from_config(config()).get_current_head() == s.HEAD


def test_an_older_store_is_brought_up_to_date(url: str) -> None:
    engine = sa.create_engine(_address(url))
    with engine.connect() as connection, connection.begin():
        older = config()
        older.attributes["connection"] = connection
        command.upgrade(older, "0001")
        trace = rows.lesson(lesson_line("e1"), "r1", "shop", 1.0)
        connection.execute(sa.insert(s.traces), [trace.row(_redactor())])
        assert "items" not in sa.inspect(connection).get_table_names()
    engine.dispose()
    with Memory.open(url) as memory:
        assert [row["example_id"] for row in query.page(memory, query.Filter(), 5)] == ["e1"]
        assert memory.add([trace]) == 0
        with memory.engine.connect() as connection:
            assert {"items", "evidence"} <= set(sa.inspect(connection).get_table_names())


def test_a_newer_store_is_refused(opened: Open, url: str) -> None:
    memory = opened()
    with writing(memory.engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(RunChanged, match="newer gepa_atlas") as caught:
        Memory.open(url)
    assert "\n" not in str(caught.value) and "0999" in str(caught.value)


def _redactor() -> object:
    from gepa_atlas.memory.config import Redactor

    return Redactor()


def test_several_processes_may_make_the_store_at_once(url: str) -> None:
    code = f"from gepa_atlas.memory.store import Memory\nwith Memory.open({url!r}) as memory: print(len(memory.states(['x'])))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(process.communicate()[0], process.returncode) for process in running] == [("0\n", 0)] * 3
