"""A toy search on Calls and Run against a provider that keeps its own ledger; run as a script, it kills itself over and over.

    python chaos.py moments DIR KILLS SEED FAULTS   SIGKILL at random moments, of resumed processes too
    python chaos.py writes DIR                      SIGKILL before every numbered commit, then once more during the resume
    python chaos.py full DIR                        the disk refuses to grow beyond many sizes

Each prints one JSON object. The provider appends "P key" to a file of its own before it answers; the caller appends "A key" after it was
answered. Children are forked: one import serves hundreds of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gepa_atlas.calls import SLOT, Calls, Retry
from gepa_atlas.errors import ConfigError, Garbled, RateLimited, ServerFault, StoreFull, Unreachable
from gepa_atlas.ports import Endpoint
from gepa_atlas.store import Run, RunView
from gepa_atlas.types import Usage, digest

WIDTH = 3
ENDPOINT = Endpoint("toy", max_concurrency=6, timeout=5.0)
RETRY = Retry(first_wait=0.001, longest_wait=0.004)
MANIFEST = {"config": "1", "data": "2"}


class Provider:
    """Answers with the hash of the key, after a random while, failing at the given rate. Everything it is asked is charged."""

    def __init__(self, ledger: Path, faults: float) -> None:
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._faults = faults

    def note(self, letter: str, key: str) -> None:
        os.write(self._ledger, f"{letter} {key}\n".encode())

    async def answer(self, key: str) -> tuple[dict[str, object], Usage]:
        self.note("P", key)
        await asyncio.sleep(random.uniform(0.0, 0.004))
        if random.random() < self._faults:
            raise random.choice([RateLimited("slow down"), ServerFault("500"), Unreachable("reset"), Garbled("half a JSON")])
        return {"value": int(digest(key)[:8], 16)}, Usage(10, 2, 0.001, 0.004, 1)


async def search(run: Run, provider: Provider, slots: int) -> None:
    """Slot n asks what the told results of slots up to n - WIDTH make it ask: one wrong answer changes everything after it."""
    calls = Calls(run, concurrency=8, retry=RETRY)
    told: list[int] = []

    async def call(key: str) -> int:
        async def attempt() -> tuple[dict[str, object], Usage]:
            return await provider.answer(key)

        body = await calls.make(role="student", key=key, endpoint=ENDPOINT, worst_tokens=50, attempt=attempt)
        provider.note("A", key)
        return int(body["value"])

    async def slot(n: int, state: int) -> int:
        SLOT.set(n)
        shared = [call(digest(["shared", n % 2, i])) for i in range(2)]
        return sum(await asyncio.gather(*shared, *[call(digest([n, state, i])) for i in range(2)])) % 1_000_003

    under_way: list[asyncio.Task[int]] = []
    for n in range(slots + WIDTH):
        if n >= WIDTH:
            told.append(await under_way[n - WIDTH])
            await run.tell(n - WIDTH, "toy", {"value": told[-1], "rollouts": calls.rollouts(n - WIDTH)})
        if n < slots:
            under_way.append(asyncio.create_task(slot(n, sum(told))))
    await run.finish()


def play(directory: Path, ledger: Path, slots: int, faults: float = 0.0, on_write: Callable[[int], None] | None = None) -> None:
    with Run.open(directory, manifest=MANIFEST, config={"slots": slots}, on_write=on_write) as run:
        asyncio.run(search(run, Provider(ledger, faults), slots))


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        random.seed(os.getpid())
        work()
        code = 0
    except StoreFull as error:
        print(error, file=sys.stderr)
        code = StoreFull.exit_code
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def settled(directory: Path) -> set[str]:
    try:
        with RunView.read(directory) as view:
            return set(view._index.answers)
    except ConfigError:  # nothing was committed yet
        return set()


class Witness:
    """Holds the outside ledger against run.db, after each death."""

    def __init__(self, directory: Path, ledger: Path) -> None:
        self.directory, self.ledger = directory, ledger
        self.seen = 0
        self.safe: set[str] = set()
        self.paid_again = self.unacknowledged = self.invented = 0
        self.paid: Counter[str] = Counter()

    def look(self) -> None:
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        acknowledged: set[str] = set()
        for line in lines[self.seen :]:
            letter, key = line.split(" ")
            if letter == "P":
                self.paid[key] += 1
                self.paid_again += key in self.safe or key in acknowledged
            else:
                acknowledged.add(key)
        self.seen = len(lines)
        now = settled(self.directory)
        self.unacknowledged += len(acknowledged - now) + len(self.safe - now)  # told to the caller, yet not on disk
        self.invented += len(now - self.paid.keys())
        self.safe = now

    def report(self) -> dict[str, int]:
        distinct = len(self.paid)
        return {
            "paid_again": self.paid_again,
            "lost": self.unacknowledged,
            "invented": self.invented,
            "extra": sum(self.paid.values()) - distinct,
            "distinct": distinct,
        }


def outcome(directory: Path) -> tuple[str, str, int]:
    with RunView.read(directory) as view:
        return view.digest(), view.status, view.calls()["rollouts"]


def reference(root: Path, slots: int) -> tuple[tuple[str, str, int], float]:
    start = time.perf_counter()
    assert ended(fork(lambda: play(root / "whole", root / "whole.txt", slots))) == 0
    return outcome(root / "whole"), time.perf_counter() - start


def moments(root: Path, kills: int, seed: int, faults: float) -> dict[str, object]:
    slots = 10
    want, span = reference(root, slots)
    chance = random.Random(seed)
    done = runs = alike = 0
    totals: Counter[str] = Counter()
    while done < kills:
        directory, ledger = root / f"run{runs}", root / f"run{runs}.txt"
        witness = Witness(directory, ledger)
        while True:
            pid = fork(partial(play, directory, ledger, slots, faults))
            time.sleep(chance.uniform(0.0, span * 0.9))
            os.kill(pid, signal.SIGKILL)
            code = ended(pid)
            witness.look()
            if code == 0 and directory.exists() and outcome(directory)[1] == "finished":
                break
            done += code == -signal.SIGKILL
            if done >= kills:
                assert ended(fork(partial(play, directory, ledger, slots, faults))) == 0
                witness.look()
                break
        runs += 1
        alike += outcome(directory) == want
        totals.update(witness.report())
    return {"kills": done, "runs": runs, "alike": alike, **totals}


def suicide(at: int) -> Callable[[int], None]:
    def on_write(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_write


def writes(root: Path) -> dict[str, object]:
    slots = 5
    want, _ = reference(root, slots)
    points = alike = 0
    totals: Counter[str] = Counter()
    while True:
        points += 1
        directory, ledger = root / f"run{points}", root / f"run{points}.txt"
        witness = Witness(directory, ledger)
        first = ended(fork(partial(play, directory, ledger, slots, 0.0, suicide(points))))
        witness.look()
        ended(fork(partial(play, directory, ledger, slots, 0.0, suicide(1 + points % 4))))
        witness.look()
        assert ended(fork(partial(play, directory, ledger, slots))) == 0
        witness.look()
        alike += outcome(directory) == want
        totals.update(witness.report())
        if first == 0:
            return {"points": points, "runs": points, "alike": alike, **totals}
        assert first == -signal.SIGKILL


def play_small(limit: int, directory: Path, ledger: Path, slots: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    play(directory, ledger, slots)


def full(root: Path) -> dict[str, object]:
    """RLIMIT_FSIZE plays the full disk: no file of the child grows beyond the limit."""
    slots = 8
    want, _ = reference(root, slots)
    refused = alike = runs = 0
    totals: Counter[str] = Counter()
    for size in [0, 1000, 3000, 6000, *range(10_000, 100_000, 4_500)]:
        directory, ledger = root / f"run{runs}", root / f"run{runs}.txt"
        witness = Witness(directory, ledger)

        code = ended(fork(partial(play_small, size, directory, ledger, slots)))
        assert code in (0, StoreFull.exit_code), f"size {size}: exit code {code}"
        refused += code != 0
        witness.look()
        assert ended(fork(partial(play, directory, ledger, slots))) == 0
        witness.look()
        runs += 1
        alike += outcome(directory) == want
        totals.update(witness.report())
    return {"refused": refused, "runs": runs, "alike": alike, **totals}


if __name__ == "__main__":
    mode, where = sys.argv[1], Path(sys.argv[2])
    if mode == "moments":
        result = moments(where, int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        result = {"writes": writes, "full": full}[mode](where)
    print(json.dumps(result))
