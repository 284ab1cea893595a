"""200 calls of half a second through each asynchronous provider, 64 at once; and nothing sent twice that no trace says was retried."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.calls import CallEvent, Calls, MemoryTape
from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.lanes import Retry
from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import Agent
from gepa_atlas.types import Question, Task
from tests.connectors.test_fault_matrix import PROVIDERS

HERE = Path(__file__).parent
CALLS, WIDTH, SECONDS = 200, 64, 0.5
IDEAL = math.ceil(CALLS / WIDTH) * SECONDS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
]

ANSWERING = [name for name in PROVIDERS if name != "dspy.module"]  # which runs in threads


class Slow:
    """A server that takes half a second, and its own book of how often each question was asked."""

    def __init__(self, provider: str) -> None:
        self.raw = json.dumps(PROVIDERS[provider][1]("4")).encode()
        self.asked: Counter[str] = Counter()
        self.fail_first = 0  # so many questions are answered with 500 when they first come
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                size = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                body = (await reader.readexactly(size)).decode() if size else ""
                mark = body[body.find("mark-") :][:8] if "mark-" in body else ""
                status = b"200 OK"
                if mark:
                    self.asked[mark] += 1
                    if self.asked[mark] == 1 and len(self.asked) <= self.fail_first:
                        status = b"500 Oops"
                if mark or ("/runs" in head.split()[1] and head.startswith("post")):
                    await asyncio.sleep(SECONDS if not mark or "/threads" not in head.split()[1] else 0)
                writer.write(
                    b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(self.raw)) + self.raw
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@contextmanager
def slow(provider: str) -> Iterator[Slow]:
    told, ready = Slow(provider), threading.Event()
    loop = asyncio.new_event_loop()

    async def listen() -> None:
        server = await asyncio.start_server(told.serve, "127.0.0.1", 0, backlog=256)
        told.port = server.sockets[0].getsockname()[1]
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    task = loop.create_task(listen())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])), daemon=True)
    thread.start()
    ready.wait(10)
    yield told
    loop.call_soon_threadsafe(task.cancel)
    thread.join(10)
    for left in asyncio.all_tasks(loop):
        left.cancel()
        loop.run_until_complete(asyncio.wait([left]))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def agent(provider: str, port: int) -> Agent:
    params = PROVIDERS[provider][0](f"http://127.0.0.1:{port}/v1")
    more = {"max_concurrency": WIDTH, "timeout": 60.0}
    return build_agent(AgentSpec(provider=provider.split()[0], params={**params, **more}), build_model=build_model, base_dir=HERE)


def robbed() -> float:
    """Seconds that this thread was ready to run and other programs of the machine had its processors; 0 where Linux does not say."""
    file = Path("/proc/thread-self/schedstat")
    return int(file.read_text().split()[1]) / 1e9 if file.exists() else 0.0


async def everything(built: Agent, count: int, events: list[CallEvent]) -> tuple[float, int]:
    """Seconds for `count` calls through the door, after one that warms it up and less what other programs took, and how many were
    answered."""
    calls = Calls(MemoryTape(), concurrency=WIDTH, retry=Retry(first_wait=0.0), on_event=events.append)
    student = calls.agent(built)
    await student.run(Task(Question("w", "warm-up")))
    began = time.perf_counter() - robbed()
    made = await asyncio.gather(*(student.run(Task(Question(f"q{i}", f"mark-{i:03d}"))) for i in range(count)))
    return time.perf_counter() - robbed() - began, sum(attempt.output == "4" for attempt in made)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "correct-horse-battery-staple")


@pytest.mark.parametrize("provider", ANSWERING)
def test_slow_calls_take_little_more_than_the_slow_calls(provider: str) -> None:
    took = []
    for _ in range(3):  # a busy machine is not a slow provider
        with slow(provider) as server:
            events: list[CallEvent] = []
            seconds, answered = asyncio.run(everything(agent(provider, server.port), CALLS, events))
            assert answered == CALLS and set(server.asked.values()) == {1}, server.asked.most_common(3)
            assert not [event for event in events if event.what == "retried"]
        took.append(seconds / IDEAL)
        if took[-1] <= 1.3:
            break
    print(f"{provider}: {took[-1]:.2f} times the ideal")
    assert min(took) <= 1.3, took


@pytest.mark.parametrize("provider", ANSWERING)
def test_what_is_sent_twice_is_a_retry_in_the_trace(provider: str) -> None:
    with slow(provider) as server:
        server.fail_first = 6
        events: list[CallEvent] = []
        _, answered = asyncio.run(everything(agent(provider, server.port), 20, events))
        retried = [event for event in events if event.what == "retried"]
        assert answered == 20 and sum(server.asked.values()) == 20 + len(retried)
        assert len(retried) == 6 and all("server_fault" in event.reason for event in retried)


HERE_TOO: dict[str, dict[str, Any]] = {
    "python.callable": {"callable": "tests.connectors.slow_agents:answer"},
    "langgraph": {"graph": "tests.connectors.slow_agents:slow"},
    "cli.command": {"argv": ["sh", "-c", "cat >/dev/null; sleep 0.5; echo 4"]},
}


@pytest.mark.parametrize("provider", list(HERE_TOO))
def test_slow_agents_of_this_machine_too(provider: str) -> None:
    from tests.connectors.slow_agents import asked

    took = []
    for _ in range(3):
        asked.clear()
        spec = AgentSpec(provider=provider, params={**HERE_TOO[provider], "max_concurrency": WIDTH})
        events: list[CallEvent] = []
        seconds, answered = asyncio.run(everything(build_agent(spec, build_model=build_model, base_dir=HERE), CALLS, events))
        assert answered == CALLS and set(asked.values()) <= {1} and not [event for event in events if event.what == "retried"]
        took.append(seconds / IDEAL)
        if took[-1] <= 1.3:
            break
    assert min(took) <= 1.3, took
