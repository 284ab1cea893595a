"""A process that has imported what training needs, and forks one child for each command line: real processes to kill, without eight
seconds of imports for each.

It reads lines of JSON {"argv": [...], "cwd": ..., "out": file} and answers {"pid": n} at once; {"wait": pid} is answered with the exit
status and the processor seconds of that child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Child:
    """One command line on its way."""

    zygote: Zygote
    pid: int
    out: Path

    def wait(self) -> int:
        """Exit code, or minus the signal that ended it."""
        answer = self.zygote.ask({"wait": self.pid})
        self.seconds = float(answer["seconds"])
        return os.waitstatus_to_exitcode(answer["status"])

    def text(self) -> str:
        return self.out.read_text("utf-8")


class Zygote:
    """Starts it; ended by `close` or at the end of a `with` block."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, "-m", "tests.train.zygote"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def ask(self, request: dict[str, object]) -> dict[str, int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, argv: Sequence[str], cwd: Path) -> Child:
        out = cwd / f"said-{time.monotonic_ns()}.txt"
        return Child(self, self.ask({"argv": list(argv), "cwd": str(cwd), "out": str(out)})["pid"], out)

    def run(self, argv: Sequence[str], cwd: Path) -> tuple[int, str]:
        child = self.start(argv, cwd)
        return child.wait(), child.text()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _serve() -> None:
    from gepa_atlas.train.config import load_train_config
    from gepa_atlas.train.surroundings import prepare

    prepare(load_train_config(ROOT / "configs" / "train" / "cpu_smoke.yaml", env={}).config, ROOT)
    import trl  # noqa: F401

    from gepa_atlas.train import evaluate, grpo, optimize, sft, tokens, trainer  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status, usage = os.wait4(request["wait"], 0)
            answer: dict[str, object] = {"status": status, "seconds": usage.ru_utime + usage.ru_stime}
        else:
            answer = {"pid": _forked(request)}
        print(json.dumps(answer), flush=True)


def _forked(request: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.chdir(request["cwd"])
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(out, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from gepa_atlas.cli import run

    code = 1
    try:
        code = run(list(request["argv"]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
