"""Promote and roll back under SIGKILL and beside each other: the old bundle serves or the new one, never neither."""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gepa_atlas.ship import sums
from gepa_atlas.ship.decision import sign
from gepa_atlas.ship.registry import Registry
from tests.ship.world import easy, small_bundle

pytestmark = pytest.mark.chaos
# Everything through which Python changes a file system. Killed before each: what is after one is before the next.
CALLS = ("open", "write", "sendfile", "replace", "rename", "mkdir", "rmdir", "unlink", "chmod", "ftruncate")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bundles")
    made = [smallest(small_bundle(place / name, easy(), text=name)) for name in ("a", "b")]
    return {sums.bundle_id(folder): folder for folder in made}


def smallest(folder: Path) -> Path:
    """The bundle with no more than a prompt and the decision on it: fewer steps to be killed at."""
    document = sums.read_json(folder / sums.DECISION)
    document["bundle_sha256s"] = {"prompt.txt": document["bundle_sha256s"]["prompt.txt"]}
    for name in set(sums.files_of(folder)) - {"prompt.txt", sums.DECISION}:
        (folder / name).unlink()
    (folder / "eval").rmdir()
    (folder / sums.DECISION).write_text(json.dumps(sign(document, None)))
    sums.write_sums(folder)
    return folder


def in_child(work: Callable[[], object]) -> int:
    """Fork, run `work`, and return the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def killing_itself_at(step: int, work: Callable[[], object]) -> Callable[[], object]:
    """`work`, in a process that kills itself before its n-th call to the file system."""
    left, opener = [step], open

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def around(*args: Any, **more: Any) -> Any:
            tick()
            value = call(*args, **more)
            if call is opener:
                tick()  # the file is there and is empty
            return value

        return around

    def run() -> object:
        for name in CALLS:
            setattr(os, name, counted(vars(os)[name]))
        io.open = builtins.open = counted(opener)
        return work()

    return run


def check(registry: Registry, old: str | None, new: str | None) -> str | None:
    """What serves is old or new, and every bundle that is there is whole. Returns what serves."""
    found = registry.resolve("teacher")
    assert found["bundle"] in (old, new)
    if found["bundle"] is not None:
        sums.verify(Path(found["path"]))
    assert registry.problems() == []
    return found["bundle"]


@pytest.mark.parametrize("action", ["promote over another", "the first promote", "rollback", "canary"])
def test_killed_at_every_step(action: str, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a killed process loses nothing that was written; this is not a power cut
    a, b = bundles
    start = Registry(tmp_path / "start")
    if action == "canary":
        start.promote(bundles[b])  # so that it is only the pointer that moves
    if action != "the first promote":
        start.promote(bundles[a])
    if action == "rollback":
        start.promote(bundles[b])
    old = start.channel("teacher").current
    ended = steps = 0
    seen = set()
    while not ended:
        steps += 1
        root = tmp_path / "registry"
        shutil.rmtree(root, ignore_errors=True)
        if start.root.exists():
            shutil.copytree(start.root, root)
        registry = Registry(root)

        def work(registry: Registry = registry) -> object:
            if action == "rollback":
                return registry.rollback("teacher")
            return registry.promote(bundles[b], canary=5 if action == "canary" else None)

        new = {"rollback": a, "canary": a}.get(action, b)
        _, status = os.waitpid(in_child(killing_itself_at(steps, work)), 0)
        ended = os.WIFEXITED(status)
        assert not ended or os.WEXITSTATUS(status) == 0
        seen.add(check(registry, old, new))
        if action == "rollback" and registry.channel("teacher").current == new:
            continue  # it is done; once more would be a step forward again
        work()  # whoever comes next is not hindered by what was left, and clears it away
        assert check(registry, new, new) == new
        assert list((root / "bundles").glob(".*")) == [] and list((root / "channels").glob(".*")) == []
    assert steps > (10 if action in ("rollback", "canary") else 25)
    assert seen == {old, new}


def test_killed_at_any_moment(bundles: dict[str, Path], tmp_path: Path) -> None:
    a, b = bundles
    registry = Registry(tmp_path / "registry")
    registry.promote(bundles[b])
    registry.promote(bundles[a])
    random = np.random.default_rng(11)

    def forever() -> None:
        for _ in range(10_000):
            for bundle in (b, a):
                registry.promote(bundles[bundle])
            registry.rollback("teacher")

    events = 2
    for delay in random.uniform(0.0, 0.03, 30):
        child = in_child(forever)
        while len(registry.channel("teacher").history) == events:  # it is under way, however busy the machine is
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check(registry, a, b)
        history = registry.channel("teacher").history
        assert len(history) > events
        events = len(history)
        linked(history)


def linked(history: object) -> None:
    """Each event begins where the one before it ended: none was lost, none was written over."""
    assert isinstance(history, tuple)
    for before, after in pairwise(history):
        assert after["from"] == before["bundle"]


def test_several_promoters_at_once(bundles: dict[str, Path], tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    ids = list(bundles)
    registry.promote(bundles[ids[0]])
    wrong: list[object] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            found = registry.resolve("teacher")
            if found["bundle"] not in ids or not Path(found["prompt"]).is_file():
                wrong.append(found)

    def promoter(first: int) -> Callable[[], None]:
        def work() -> None:
            for n in range(8):
                registry.promote(bundles[ids[(first + n) % 2]], canary=None)

        return work

    children = [in_child(promoter(n)) for n in range(3)]
    watcher = threading.Thread(target=watch)
    watcher.start()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    done.set()
    watcher.join()
    assert codes == [0, 0, 0] and wrong == []
    linked(registry.channel("teacher").history)
    check(registry, *ids)
