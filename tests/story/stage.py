"""Processes of `gepa-atlas`, many and cheap: a small server that has imported the program forks one for each command line.

A forked child is a process of its own, with the whole command line in it from its arguments to its exit code: it can be killed, starved
and signalled. Run as a script it is that server; imported, it is the tests' end of the wire.

    with Stage(scratch) as stage:
        act = stage.start("optimize", config, "--run-dir", directory)
        act.kill(signal.SIGKILL)
        assert act.wait().code == -signal.SIGKILL
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
TOY = ROOT / "configs" / "examples" / "toyworld.yaml"


# -- the tests' end ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """A finished process. code: exit code, negative for a signal."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """What stderr says, which must be one line that opens with `error: `."""
        assert self.err.startswith("error: ") and self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        return self.err.removeprefix("error: ").rstrip("\n")


class Act:
    """One process on the stage."""

    def __init__(self, stage: Stage, number: int, pid: int) -> None:
        self._stage, self._number, self.pid = stage, number, pid
        self._ended: Ended | None = None

    def kill(self, what: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal. Until its end was seen, the process may be dead, but its number is not another's."""
        if self._ended is None:
            os.kill(self.pid, what)

    def ends_within(self, seconds: float) -> bool:
        """Whether the process comes to its end by itself in this time."""
        if self._ended is None:
            code = self._stage.ask({"wait": self.pid, "seconds": seconds})["code"]
            if code is not None:
                self._ended = Ended(code, self.out, self.err)
        return self._ended is not None

    @property
    def out(self) -> str:
        return self._stage.output(self._number, "out")

    @property
    def err(self) -> str:
        return self._stage.output(self._number, "err")

    def wait(self, seconds: float = 120.0) -> Ended:
        """The end of the process; one that does not come to it in time is killed and fails the test."""
        if not self.ends_within(seconds):
            self.kill()
            self.ends_within(10.0)
            raise AssertionError(f"process {self.pid} did not end within {seconds:g} s\n{self.out}\n{self.err}")
        assert self._ended is not None
        return self._ended


class Stage:
    """The forking server, for a test session."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._count = 0
        env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        for name in ("STUDENT_MODEL", "TEACHER_MODEL", "REFLECTION_LM", "TRAINSET", "VALSET"):
            env.pop(name, None)
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__))],
            cwd=scratch,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        die_at_write: int = 0,
        largest_file: int | None = None,
    ) -> Act:
        """`gepa-atlas ARGUMENTS` in a new process. die_at_write: SIGKILL itself before its n-th commit. largest_file: bytes; beyond
        them the disk is full."""
        self._count += 1
        files = [self._scratch / f"{self._count}.{kind}" for kind in ("out", "err")]
        for path in files:  # now, for the process may be killed before it opens them
            path.touch()
        asked = {
            "start": [str(a) for a in arguments],
            "cwd": str(cwd or self._scratch),
            "env": dict(env or {}),
            "files": [str(path) for path in files],
            "die_at_write": die_at_write,
            "largest_file": largest_file,
        }
        return Act(self, self._count, self.ask(asked)["pid"])

    def run(self, *arguments: str | Path, **how: Any) -> Ended:
        return self.start(*arguments, **how).wait()

    def done(self, *arguments: str | Path, **how: Any) -> Ended:
        """A command that must succeed without a word on stderr."""
        ended = self.run(*arguments, **how)
        assert (ended.code, ended.err) == (0, ""), ended
        return ended

    def output(self, number: int, kind: str) -> str:
        return (self._scratch / f"{number}.{kind}").read_text("utf-8")

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server.stdin and self._server.stdout
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()


# -- the server -------------------------------------------------------------------------------------------------------


def serve() -> None:
    app = _preload()
    gc.collect()
    gc.freeze()  # what is shared with the children stays shared
    ends: dict[int, int] = {}  # pid -> a pipe that closes when the process ends
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            seen, held = os.pipe()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the command line is what it interrupts
            pid = os.fork()
            if pid == 0:
                os.close(seen)
                _child(asked | {"app": app})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            os.close(held)
            ends[pid] = seen
            answer: dict[str, Any] = {"pid": pid}
        else:
            answer = {"code": _ended(asked["wait"], ends, asked["seconds"])}
        print(json.dumps(answer), flush=True)
    for pid in ends:  # a test that failed may have left one
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ended(pid: int, ends: dict[int, int], seconds: float) -> int | None:
    if not select.select([ends[pid]], [], [], seconds)[0]:
        return None
    os.close(ends.pop(pid))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _preload() -> Callable[..., Any]:
    """What most commands import at first use, for `import numpy` alone takes longer than a whole short run; and the tree of commands."""
    import httpx  # noqa: F401
    import jsonschema  # noqa: F401
    import numpy.ma
    import numpy.random  # noqa: F401
    from typer.main import get_command

    import gepa_atlas.cli.session
    import gepa_atlas.cli.views
    import gepa_atlas.connectors.toyworld
    import gepa_atlas.rim.atlas
    import gepa_atlas.rim.judges.exact
    import gepa_atlas.testing.toyworld

    return get_command(gepa_atlas.cli.app)


def _child(asked: dict[str, Any]) -> None:
    code = 70
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for path in asked["files"]]
        for target, handle in enumerate([null, *files]):
            os.dup2(handle, target)
        os.chdir(asked["cwd"])
        os.environ.update(asked["env"])
        if asked["largest_file"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest_file"],) * 2)
        if asked["die_at_write"]:
            _die_at_write(asked["die_at_write"])
        from gepa_atlas import cli

        vars(cli)["app"] = partial(_unblocked, asked["app"])
        code = cli.run(asked["start"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _unblocked(app: Callable[..., Any], *args: Any, **how: Any) -> Any:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        return app(*args, **how)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _die_at_write(number: int) -> None:
    from gepa_atlas import loop

    def on_write(write: int) -> None:
        if write == number:
            os.kill(os.getpid(), signal.SIGKILL)

    loop.run = partial(loop.run, on_write=on_write)


if __name__ == "__main__":
    serve()
