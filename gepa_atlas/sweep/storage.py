"""Where a sweep's study is kept: a journal in its folder, which survives kills, or a database by address."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gepa_atlas.configfile import expand
from gepa_atlas.errors import ConfigError, Outage
from gepa_atlas.secrets import scrub

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

JOURNAL = "study.journal"
_BEGINNING_SECONDS = 10.0


@contextmanager
def storage(url: str | None, folder: Path) -> Iterator[BaseStorage]:
    """The storage of a sweep, closed at the end. Raises ConfigError, one line, for a database that cannot be used, and Outage for one that
    fails meanwhile."""
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is None:
        path = folder / JOURNAL
        yield JournalStorage(JournalFileBackend(str(path), lock_obj=_journal_lock(path)))
        return
    database = _database(url)
    try:
        yield database
    except (StorageInternalError, SQLAlchemyError) as error:
        raise Outage(
            f"storage: {_shown(url)} failed on the way ({_line(error.__cause__ or error)}); the same command with --resume goes on when it "
            "answers again"
        ) from None
    finally:
        database.remove_session()
        database.engine.dispose()


def claims(url: str | None, folder: Path) -> Path:
    """What a process locks while it chooses trials: in its folder, or beside a database that is a file, since SQLite locks no rows."""
    file = None if url is None else _file(_expanded(url))
    return folder / "claim.lock" if file is None else Path(f"{file}.lock")


def _file(address: str) -> str | None:
    """The file of an SQLite database; None for a server."""
    from sqlalchemy import make_url

    parsed = make_url(address)
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database.startswith((":", "file:")):
        raise ConfigError(f"storage: {_shown(address)} names no file; write sqlite:///PATH, or leave storage out for one machine")
    return parsed.database


def _expanded(url: str) -> str:
    found: str = expand({"storage": url}, os.environ, "storage").tree["storage"]
    return found


def _database(url: str) -> RDBStorage:
    import sqlalchemy

    shown, address = _shown(url), _expanded(url)
    try:
        _file(address)
        return _made(address)
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise ConfigError(f"storage: {shown} is no address of a database ({_line(error)}); write postgresql+psycopg://...") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise ConfigError(f"storage: {shown} cannot be reached ({_line(error)}); start the server, or correct the address") from None
    except RuntimeError as error:
        raise ConfigError(f"storage: {shown} was written by another version of optuna ({_line(error)})") from None


def _made(address: str) -> RDBStorage:
    """With its tables, which another process may be making too."""
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    until = time.monotonic() + _BEGINNING_SECONDS
    while True:
        try:
            return RDBStorage(address)
        except SQLAlchemyError as error:
            if not (isinstance(error, IntegrityError) or "already exists" in str(error)) or time.monotonic() > until:
                raise
            time.sleep(0.1)


def _shown(url: str) -> str:
    """An address may hold a password."""
    return f"{url.partition('://')[0]}://..."


def _line(error: BaseException) -> str:
    return scrub(" ".join(str(error).split()))[:160]


def _journal_lock(path: Path) -> Any:
    """Optuna's own locks outlive a killed process, and its journal does not survive a torn last line. This lock is the kernel's, and
    cuts a torn line off before anything is added."""
    from optuna.storages.journal._file import BaseJournalFileLock

    class Lock(BaseJournalFileLock):
        _handle = -1

        def acquire(self) -> bool:
            handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
            _cut_torn_line(path)
            self._handle = handle
            return True

        def release(self) -> None:
            os.close(self._handle)

    return Lock()


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
