"""A connection to a store at the newest schema, and what its errors mean to a user."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from gepa_atlas.errors import AtlasError, ConfigError, MissingExtra, RunBusy, RunChanged, RunDamaged, StoreFull
from gepa_atlas.memory.schema import HEAD
from gepa_atlas.secrets import remember, scrub
from gepa_atlas.store.exports import refused
from gepa_atlas.store.lock import refuse_remote
from gepa_atlas.types import digest

_WAIT = 120.0  # seconds a writer waits for its turn: SQLite has one writer at a time
_LOG = 256_000_000  # bytes of SQLite's log after which it is moved into the file
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


def connect(url: str, *, create: bool) -> sa.Engine:
    """An engine for the store at this address, made or migrated where it has to be. Errors are one line (see `explained`).
    With `create` false a store that is not there is refused."""
    address = _address(url)
    shown = address.database or "" if address.drivername == "sqlite" else address.render_as_string(hide_password=True)
    with explained(shown):
        engine = _sqlite(Path(address.database or ""), create) if address.drivername == "sqlite" else _postgresql(address)
        try:
            _bring_up_to_date(engine, shown)
        except BaseException:
            engine.dispose()
            raise
    return engine


def _address(url: str) -> sa.URL:
    """A path is an SQLite file; postgres:// and postgresql:// go through psycopg."""
    if "://" not in url:
        if not url.strip():
            raise ConfigError("memory.url: is empty; give the path of an SQLite file, or postgresql://user@host/database")
        return sa.URL.create("sqlite", database=str(Path(url).expanduser().absolute()))
    try:
        address = sa.make_url(url)
    except (SQLAlchemyError, ValueError):
        raise ConfigError("memory.url: is no address; give the path of an SQLite file, or postgresql://user@host/database") from None
    address = _with_its_password_apart(address)
    if "@" in f"{address.host}{address.database}" and address.drivername != "sqlite":
        raise ConfigError("memory.url: has more than one @; write an @ of the user's name or password as %40, and a / as %2F")
    if address.drivername == "sqlite":
        if not address.database or address.database == ":memory:":
            raise ConfigError("memory.url: names no file; give sqlite:///path/of/memory.db, or just the path")
        return address.set(database=str(Path(address.database).absolute()))
    if address.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return address.set(drivername="postgresql+psycopg")
    raise ConfigError(f"memory.url: {address.drivername!r} is no store of traces; use an SQLite file or postgresql://user@host/database")


def _with_its_password_apart(address: sa.URL) -> sa.URL:
    """A password among the parameters becomes the password of the address, which is never shown."""
    given = address.query.get("password")
    if given is not None:
        address = address.difference_update_query(["password"]).set(password=given if isinstance(given, str) else given[-1])
    if address.password:
        remember(address.password)
    return address


def _sqlite(path: Path, create: bool) -> sa.Engine:
    if not create and not path.exists():
        raise ConfigError(f"{path}: there is no memory here yet; `gepa-atlas traces import RUN` makes one, or name another with --memory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_remote(path.parent.resolve(), what="memory")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise refused(path, error) from None
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": _WAIT})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are ours: the driver would begin them too late
        for pragma in ("busy_timeout = 120000", "journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A writer takes its turn at the start: upgraded half-way, a transaction would fail instead of wait.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(address: sa.URL) -> sa.Engine:
    try:
        patience = {"connect_timeout": 10, "tcp_user_timeout": 60_000, "options": "-c statement_timeout=300s"}  # s, ms
        return sa.create_engine(address, pool_pre_ping=True, connect_args=patience)
    except (ModuleNotFoundError, NoSuchModuleError):
        raise MissingExtra("a memory in PostgreSQL", "postgres") from None


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction of a writer."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def tidy(engine: sa.Engine) -> None:
    """Move SQLite's log into the file when it has grown: writers that never pause would let it grow for ever."""
    log = Path(f"{engine.url.database}-wal")
    if engine.dialect.name != "sqlite" or not log.exists() or log.stat().st_size < _LOG:
        return
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def take_turns(connection: sa.Connection, names: Iterable[str]) -> None:
    """Writers of the same runs one after the other: they would hold each other's rows. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        for number in sorted({int(digest(name, 15), 16) for name in names}):
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:n)"), {"n": number})


def _bring_up_to_date(engine: sa.Engine, shown: str) -> None:
    """Create or migrate, one process at a time; all or nothing."""
    with engine.connect() as connection:
        if _revision(connection, shown) == HEAD:
            return
    with writing(engine) as connection:
        take_turns(connection, ["migration"])
        found = _revision(connection, shown)  # another process may have been faster
        if found != HEAD:
            _migrate(connection, shown, found)


def _revision(connection: sa.Connection, shown: str) -> str | None:
    tables = set(sa.inspect(connection).get_table_names())
    if "alembic_version" not in tables:
        if "traces" in tables or (tables and connection.dialect.name == "sqlite"):
            raise ConfigError(f"{shown}: this database is not a memory of gepa_atlas; name another with memory.url or --memory")
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: sa.Connection, shown: str, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise RunChanged(
            f"{shown}: this memory was written by a newer gepa_atlas (schema {found}, this program knows {HEAD}): "
            "update gepa_atlas, or name another memory"
        )
    command.upgrade(config, "head")


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Errors of the database as errors of ours: one line, no password, no statement."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _meaning(error, shown) from None


def _meaning(error: SQLAlchemyError, shown: str) -> AtlasError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = scrub(" ".join(str(cause).split()))[:300]
    if isinstance(cause, sqlite3.Error):
        try:
            code = cause.sqlite_errorcode & 0xFF
        except AttributeError:  # Python itself refused what it read
            code = sqlite3.SQLITE_CORRUPT
        if code in _FULL:
            return StoreFull(f"{shown}: the disk refused a write ({said}); what was committed is intact: make room and do it again")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RunBusy(f"{shown}: another program has held it for {_WAIT:g} s ({said}); close that program and do it again")
        return RunDamaged(f"{shown} is damaged or no SQLite file ({said}); restore it from a copy, or name another memory")
    return ConfigError(f"memory.url: {shown} could not be used ({said}); is the server running, and may this user write there?")
