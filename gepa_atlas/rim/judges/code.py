"""code: the program in the output is run, in a process of its own with limits, on tests that the example brings.

The limits (time, memory, file size, processes, an empty working directory, no environment, no network where the kernel lets us drop it)
stop accidents and runaway programs. They are no sandbox against an attacker: a program can read what its user can read. Run it in a
container when the student may be hostile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from weakref import WeakKeyDictionary

from pydantic import Field

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import ANSWER, SPEC, Door, JudgeSettings, missing, shown
from gepa_atlas.types import Example, JudgeScore

_FENCE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(.*?)(?:\n```|\Z)", re.S | re.I)


class CodeSettings(JudgeSettings):
    """`tests: spec`: the example's spec holds `tests`, a list of Python texts run after the program, each in its own process: the score
    is the share that ends without an error. `tests: stdin`: spec holds `cases`, `[{"stdin", "stdout"}]`. `tests: answer`: the program's
    output must equal an accepted answer.
    """

    type: Literal["code"] = "code"
    tests: Literal["spec", "stdin", "answer"] = "spec"
    partial: bool = True  # the share of tests passed; otherwise all or nothing
    seconds: float = Field(default=5.0, gt=0)  # of each process, wall clock and processor
    memory_mib: int = Field(default=512, ge=64)
    max_output: int = Field(default=100_000, ge=100)  # bytes of stdout that are read

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({ANSWER}) if self.tests == "answer" else frozenset({SPEC})

    def check(self, examples: Sequence[Example]) -> None:
        for example in examples:
            if self.tests != "answer":
                self.cases(example)

    def cases(self, example: Example) -> list[tuple[str, str, str | None]]:
        """(text added to the program, its stdin, the stdout that is wanted or None)."""
        if self.tests == "answer":
            return [("", "", None)]
        key = "tests" if self.tests == "spec" else "cases"
        found: list[tuple[str, str, str | None]] = []
        try:
            rows = json.loads(example.spec or "{}")[key]
            found = [(str(r), "", None) if self.tests == "spec" else ("", str(r["stdin"]), str(r["stdout"])) for r in rows]
        except (ValueError, KeyError, TypeError):
            pass
        if not found:
            raise DataError(f"example {example.id!r} has no `{key}` in its spec, which judge {self.called!r} runs: add them or set `tests`")
        return found

    def build(self, door: Door) -> CodeJudge:
        if os.name != "posix":
            raise ConfigError(f"rim.judges.{self.called}: code is run with POSIX limits; this system has none, take another judge")
        return CodeJudge(self.called, f"code:{self.fingerprint()}", self.tests == "answer", self)


def program_in(output: str) -> str:
    """The last fenced block, or the whole output when nothing is fenced."""
    blocks = _FENCE.findall(output)
    return str(blocks[-1]) if blocks else output


@dataclass(frozen=True)
class CodeJudge:
    name: str
    identity: str
    needs_answer: bool
    settings: CodeSettings
    rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = field(default_factory=WeakKeyDictionary, compare=False)

    def _room(self) -> asyncio.Semaphore:
        """As many programs at once as there are processors: more would make each other run out of time."""
        return self.rooms.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(os.cpu_count() or 1))

    async def judge(self, case: Case) -> JudgeScore:
        program = program_in(case.output).replace("\x00", "")
        passed, why = 0, ""
        try:
            cases = self.settings.cases(case.example)
        except DataError as error:
            return missing(self.name, "bad_example", str(error))
        for added, stdin, wanted in cases:
            try:
                async with self._room():
                    code, out, err = await self._run(f"{program}\n{added}\n", stdin)
            except OSError as error:
                return missing(self.name, "judge_crashed", f"no process could be started: {error}")
            answers = case.example.answers if self.settings.tests == "answer" else (wanted,)
            right = code == 0 and any(a is None or out.strip() == a.strip() for a in answers)
            passed += right
            if not right and not why:
                why = "out of time" if code is None else (err.strip().splitlines() or [f"printed {shown(out.strip())}"])[-1][:200]
        share = passed / len(cases) if self.settings.partial else float(passed == len(cases))
        return JudgeScore(self.name, share, f"{passed} of {len(cases)} passed" + (f"; {why}" if why else ""), 0.0)

    async def _run(self, program: str, stdin: str) -> tuple[int | None, str, str]:
        """(exit code or None when time ran out, stdout, stderr)."""
        s = self.settings
        with tempfile.TemporaryDirectory(prefix="gepa_atlas_code_", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "program.py"
            path.write_text(program, "utf-8", errors="replace")
            limits = json.dumps([s.memory_mib << 20, int(s.seconds) + 1, s.max_output * 10])
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(Path(__file__).with_name("_confined.py")), limits, str(path),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": folder, "LANG": "C.UTF-8"}, start_new_session=True,
            )  # fmt: skip
            try:
                async with asyncio.timeout(s.seconds):
                    await _feed(process, stdin)
                    out, err = await asyncio.gather(_read(process.stdout, s.max_output), _read(process.stderr, 20_000))
                    code: int | None = await process.wait()
            except TimeoutError:
                code, out, err = None, b"", b""
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and whatever it started
                await process.wait()
        return code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


async def _feed(process: asyncio.subprocess.Process, stdin: str) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(stdin.encode("utf-8", "replace"))
            await process.stdin.drain()
        process.stdin.close()


async def _read(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    """Up to `limit` bytes; the rest is drained and dropped so that the program is not stopped by a full pipe."""
    kept = bytearray()
    while stream is not None and (block := await stream.read(65536)):
        kept += block[: max(0, limit - len(kept))]
    return bytes(kept)
