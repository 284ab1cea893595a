"""A real PostgreSQL for tests and benchmarks: a server of its own in a temporary folder, on loopback, gone afterwards.

with server() as postgres:
    url = postgres.database("first")
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_USERS = ("postgres", "nobody")  # PostgreSQL refuses to run as root


def binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, from PATH or where Debian keeps them; None where there is no server to start."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "pg_ctl").exists() and (place / "initdb").exists()), None)


@dataclass(frozen=True)
class Postgres:
    """A running server. `tools` is the folder of its programs."""

    port: int
    tools: Path

    def database(self, name: str) -> str:
        """The address of a new, empty database."""
        command: list[str | Path] = [self.tools / "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", name]
        subprocess.run(command, check=True, capture_output=True)
        return self.address(name)

    def address(self, name: str, user: str = "tester") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def dump(self, name: str) -> bytes:
        """Everything in a database, as pg_dump writes it."""
        command: list[str | Path] = [self.tools / "pg_dump", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", name]
        return subprocess.run(command, check=True, capture_output=True).stdout


@contextmanager
def server(tools: Path, *, durable: bool = False) -> Iterator[Postgres]:
    """Start a server of its own. durable: with fsync, as in production; without, faster."""
    user = None
    if os.geteuid() == 0:
        import pwd

        known = {entry.pw_name for entry in pwd.getpwall()}
        user = next(name for name in _USERS if name in known)
    with tempfile.TemporaryDirectory(prefix="gepa_atlas_pg_") as place:
        if user is not None:
            shutil.chown(place, user)
        data = str(Path(place) / "data")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {place} -c fsync={'on' if durable else 'off'}"
        _run(user, tools / "initdb", "-D", data, "-U", "tester", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        _run(user, tools / "pg_ctl", "-D", data, "-o", options, "-l", str(Path(place) / "log"), "-w", "start")
        try:
            yield Postgres(port, tools)
        finally:
            _run(user, tools / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _run(user: str | None, *command: str | Path) -> None:
    """As that user. The server inherits no pipe, or the caller would wait for it."""
    subprocess.run(command, check=True, user=user, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
