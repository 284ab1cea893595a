"""One owner per run directory: an flock held for life, freed by the kernel the moment the owner dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError, RunBusy

_REMOTE = {"nfs", "nfs4", "cifs", "smbfs", "smb3", "fuse.sshfs", "afs"}


class RunLock:
    """`run.lock`, with the owner's pid, host and start time inside. Raises RunBusy naming the owner."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "run.lock"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._forget()
            raise RunBusy(_busy(directory)) from None
        claim = {"pid": os.getpid(), "host": socket.gethostname(), "started": round(time.time(), 3)}
        try:
            self._write(json.dumps(claim).encode())
        except OSError:
            self._forget()
            raise
        os.register_at_fork(after_in_child=self._forget)  # a forked child would keep the lock when its parent is killed

    def release(self) -> None:
        if self._fd >= 0:
            self._write(b"")
            self._forget()

    def _write(self, content: bytes) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, content, 0)

    def _forget(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def owner(directory: Path) -> dict[str, Any] | None:
    """Who says it owns the directory. A killed owner's word stays until the next one; see `alive`."""
    try:
        found = json.loads((directory / "run.lock").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def alive(claim: dict[str, Any] | None) -> bool:
    """Whether that owner runs on this host. An owner on another host is taken for alive."""
    if claim is None:
        return False
    if claim.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(claim["pid"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _busy(directory: Path) -> str:
    claim = None
    for _ in range(10):  # the owner writes its name just after it takes the lock
        time.sleep(0.03)
        claim = owner(directory)
        if claim:
            break
    who = f"process {claim.get('pid')} on {claim.get('host')}" if claim else "another process"
    return f"{directory}: this run is in the hands of {who}; wait until it ends, or choose another run directory"


_MOUNTS = Path("/proc/self/mountinfo")


def remote_disk(directory: Path, mounts: Path = _MOUNTS) -> str | None:
    """The kind of network file system that an absolute path lies on, where neither flock nor SQLite's log can be trusted; else None."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None  # not Linux: cannot be detected
    kind, depth = "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4].replace("\\040", " "))
        if len(mount.parts) > depth and directory.is_relative_to(mount):
            kind, depth = after.split()[0], len(mount.parts)
    return kind if kind in _REMOTE else None


def refuse_remote(directory: Path, mounts: Path = _MOUNTS, what: str = "run") -> None:
    """Raise ConfigError when the directory is on a network file system."""
    kind = remote_disk(directory, mounts)
    if kind is not None:
        raise ConfigError(f"{what} directory {directory} is on {kind}: locks and SQLite files are not safe there; choose a local disk")
