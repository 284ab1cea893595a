"""One child process, from start to end: fed, read with a cap, and killed with everything it started, whatever happens.

On POSIX systems. A grandchild that left the process group is found by the HOME it inherited, where there is a /proc to look in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gepa_atlas.errors import BadRequest, TooLarge, Unreachable

_DRAIN_SECONDS = 1.0  # for output of a program that has ended but left a child holding its pipes
_POLL_SECONDS = 0.02
_STDERR_BYTES = 16_384
_KILL_ROUNDS = 50
# Set in a launcher of our own rather than in preexec_fn, which may deadlock in a process with threads.
_LAUNCHER = """
import os, resource, sys
for kind, value in ((resource.RLIMIT_AS, int(sys.argv[1])), (resource.RLIMIT_CPU, int(sys.argv[2]))):
    if value:
        resource.setrlimit(kind, (value, value))
os.execv(sys.argv[3], sys.argv[3:])
"""


@dataclass(frozen=True, slots=True)
class Limits:
    max_bytes: int
    memory_mb: int | None = None
    cpu_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    code: int  # negative: the signal that ended it
    output: bytes
    last_error_line: str


async def run_process(argv: Sequence[str], given: bytes, *, env: Mapping[str, str], cwd: Path, limits: Limits, who: str) -> Ended:
    """Run `argv` with `given` on stdin. Raises TooLarge (output), BadRequest (arguments too long), Unreachable (cannot be started).

    `env["HOME"]` must belong to this call alone: it marks what the program starts. On return, error or cancellation all of that is gone.
    """
    process = await _started(argv, env, cwd, limits, who)
    assert process.stdout is not None and process.stderr is not None
    feeding = asyncio.create_task(_feed(process, given))
    answer = asyncio.create_task(_read(process.stdout, limits.max_bytes, who))
    complaint = asyncio.create_task(_tail(process.stderr))
    reading = asyncio.gather(answer, complaint)
    ending = asyncio.create_task(_exit(process))
    try:
        either: set[asyncio.Future[Any]] = {reading, ending}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()  # TooLarge ends the call at once
        code = await ending
        await asyncio.wait({reading}, timeout=_DRAIN_SECONDS)
        if not reading.done():
            _kill(process, env["HOME"])
        output, errors = await reading
        return Ended(code, output, _last_line(errors))
    finally:
        readers = (answer, complaint, reading)  # the two by themselves: a gather that failed no longer cancels what it gathers
        for task in (feeding, ending, *readers):
            task.cancel()
        _kill(process, env["HOME"])
        await asyncio.gather(feeding, ending, *readers, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # a full pipe that nobody reads would keep the transport, and so the wait, open
            async with asyncio.timeout(_DRAIN_SECONDS):
                await asyncio.gather(_tail(process.stdout), _tail(process.stderr), process.wait())


async def _exit(process: Process) -> int:
    """The exit code, as soon as the program itself has ended. `Process.wait` would also wait for whoever else holds its pipes."""
    pause = 0.001
    while process.returncode is None:
        await asyncio.sleep(pause)
        pause = min(2 * pause, _POLL_SECONDS)
    return process.returncode


async def _started(argv: Sequence[str], env: Mapping[str, str], cwd: Path, limits: Limits, who: str) -> Process:
    if limits.memory_mb or limits.cpu_seconds:
        numbers = [str((limits.memory_mb or 0) * 1_048_576), str(limits.cpu_seconds or 0)]
        argv = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *numbers, *argv]
    try:
        return await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env, cwd=cwd, start_new_session=True)
    except OSError as error:
        if error.errno == 7:  # E2BIG
            raise BadRequest(f"{who}: the prompt is too long for an argument (the system's limit is 128 kB); pass it on stdin") from None
        raise Unreachable(f"{who} could not be started: {error.strerror}") from None


async def _feed(process: Process, given: bytes) -> None:
    """Write stdin and close it. A program that does not read its input, or ends early, is no error here."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(given)
        await process.stdin.drain()
    process.stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()


async def _read(stream: asyncio.StreamReader, max_bytes: int, who: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(65_536):
        size += len(part)
        if size > max_bytes:
            raise TooLarge(f"{who} wrote more than {max_bytes} bytes (max_bytes)")
        parts.append(part)
    return b"".join(parts)


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """The last bytes of a stream, however long it is."""
    kept = b""
    while part := await stream.read(65_536):
        kept = (kept + part)[-_STDERR_BYTES:]
    return kept


def _last_line(raw: bytes) -> str:
    lines = [line.strip() for line in raw.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _kill(process: Process, home: str) -> None:
    """Kill the process group, then those that left it. Repeated while there are any, since they may be starting others."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    wanted = f"HOME={home}".encode()
    for _ in range(_KILL_ROUNDS):
        found = [pid for pid in _processes() if wanted in _environment(pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _environment(pid: int) -> list[bytes]:
    """Its variables as NAME=value; empty for one that is gone, a zombie, or another user's."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return file.read().split(b"\0")
    except OSError:
        return []
