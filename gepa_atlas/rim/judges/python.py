"""python: a function of the user's: `def judge(output: str, example: Example) -> float | bool | tuple[float, str] | None`."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from weakref import WeakKeyDictionary

from pydantic import Field

from gepa_atlas.errors import ConfigError, said
from gepa_atlas.ports import Case
from gepa_atlas.rim.judges.base import ANSWER, Door, JudgeSettings, missing
from gepa_atlas.threads import DaemonThreads
from gepa_atlas.types import JudgeScore


class PythonSettings(JudgeSettings):
    """`function` is "package.module:function" or "path/to/file.py:function" (relative to the configuration). Sync or async.

    True and False are 1 and 0; a number is the score in [0, 1]; a pair adds a rationale; None means "cannot say". A plain
    function runs in a thread, so it must not keep state between calls; `timeout` ends the wait, not the thread.
    """

    type: Literal["python"] = "python"
    function: str = Field(pattern=r"^[^:]+(:[^:\\/]+)+$")
    needs_answer: bool = False
    timeout: float = Field(default=30.0, gt=0)
    concurrency: int = Field(default=64, ge=1, le=1024)  # calls of the function at once

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({ANSWER}) if self.needs_answer else frozenset()

    def build(self, door: Door) -> PythonJudge:
        place, _, name = self.function.rpartition(":")
        module = _load(place, door.base_dir, f"rim.judges.{self.called}.function")
        function = vars(module).get(name)
        if not callable(function):
            raise ConfigError(f"rim.judges.{self.called}.function: {place} has no function {name!r}; define it or correct the name")
        # The identity holds the source, so that a changed judge is noticed when a run is resumed.
        source = Path(module.__file__).read_bytes() if module.__file__ else b""
        identity = f"python:{self.fingerprint()}:{hashlib.sha256(source).hexdigest()[:16]}"
        threads = DaemonThreads(self.concurrency, "judge")
        return PythonJudge(self.called, identity, self.needs_answer, function, self.timeout, self.concurrency, threads)


@dataclass(frozen=True)
class PythonJudge:
    name: str
    identity: str
    needs_answer: bool
    function: Callable[..., Any]
    timeout: float
    concurrency: int
    threads: DaemonThreads = field(compare=False)
    rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = field(default_factory=WeakKeyDictionary, compare=False)

    async def judge(self, case: Case) -> JudgeScore:
        async with self.rooms.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.concurrency)):
            return await self._judge(case)

    async def _judge(self, case: Case) -> JudgeScore:
        try:
            return _score(self.name, await asyncio.wait_for(self._said(case), self.timeout))
        except TimeoutError:
            return missing(self.name, "timeout", f"the function did not return within {self.timeout:g} s")
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if own is None or own.cancelling():
                raise
            return missing(self.name, "judge_crashed", "CancelledError")
        except Exception as error:  # the border to the user's code: whatever it raises is a missing score with its name
            return missing(self.name, "judge_crashed", said(error)[:300])

    async def _said(self, case: Case) -> Any:
        """What the function returned. In a daemon thread: one that never returns must not keep a finished program alive."""
        try:
            if inspect.iscoroutinefunction(self.function):
                return await self.function(case.output, case.example)
            try:
                answer = await self.threads.run(partial(self.function, case.output, case.example))
            except KeyboardInterrupt as error:  # raised by the function in its thread: nobody pressed Ctrl-C
                raise RuntimeError(said(error)) from error
            return await answer if inspect.isawaitable(answer) else answer
        except SystemExit as error:  # out of a task it would end the program
            raise RuntimeError(said(error)) from error


def _score(name: str, answer: Any) -> JudgeScore:
    value, why = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
    if value is None:
        return missing(name, "abstained", str(why) or "the function returned None")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return missing(name, "bad_score", f"the function returned {type(value).__name__}, not a number, a bool or (number, text)")
    if isinstance(value, str) or not math.isfinite(number) or not 0.0 <= number <= 1.0:
        return missing(name, "bad_score", f"the function returned {value!r}; a score is a number in [0, 1]"[:200])
    return JudgeScore(name, number, str(why), 0.0)


def _load(place: str, base_dir: Path, where: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except (Exception, SystemExit) as error:  # the border to the user's code
            why = said(error)
            raise ConfigError(f"{where}: cannot import {place!r} ({why}); install it, correct it or give a path to a .py file") from None
    path = (base_dir / place).resolve()
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {path}; correct the path (it is relative to the configuration)")
    name = f"gepa_atlas_judge_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{where}: {path} cannot be loaded as a Python file; check its name")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the border to the user's code
        raise ConfigError(f"{where}: {path} fails on import ({said(error)}); correct it") from None
    return module
