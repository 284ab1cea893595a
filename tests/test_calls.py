"""The one door for paid calls: recorded, shared, limited, retried, ended by its deadline. Time is simulated except against real sockets."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from gepa_atlas import secrets
from gepa_atlas.budget import Limits
from gepa_atlas.calls import SLOT, CallEvent, Calls, Draining, Entry, MemoryTape, Retry
from gepa_atlas.errors import (
    AgentCrashed,
    AuthRefused,
    BadRequest,
    BudgetExhausted,
    CallError,
    CallTimeout,
    ContractError,
    EmptyAnswer,
    Garbled,
    Outage,
    RateLimited,
    ServerFault,
)
from gepa_atlas.lanes import Lane
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.tape import error_body, recorded_error
from gepa_atlas.testing.scripted import ScriptedAgent
from gepa_atlas.types import Attempt, Message, Question, Role, Task, Usage, digest

T = TypeVar("T")
Reply = tuple[dict[str, Any], Usage]
FAST = Retry(first_wait=0.0)
ENDPOINT = Endpoint("e")


class Simulated(asyncio.SelectorEventLoop):
    """A loop whose clock jumps over every wait."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = selectors.DefaultSelector()
        real = selector.select

        def jump(timeout: float | None = None) -> Any:
            if timeout is None:
                return real(None)
            self.now += max(0.0, timeout)
            return real(0)

        selector.select = jump  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def simulate(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=Simulated) as runner:
        return runner.run(work)


def now() -> float:
    return asyncio.get_running_loop().time()


class Caller:
    """Calls by number against `answer`, which is given the number and how often it was tried."""

    def __init__(self, calls: Calls, answer: Callable[[int, int], Awaitable[object]], endpoint: Endpoint = ENDPOINT) -> None:
        self.calls, self.answer, self.endpoint = calls, answer, endpoint
        self.tries: Counter[int] = Counter()

    async def __call__(self, number: int) -> object:
        async def attempt() -> Reply:
            self.tries[number] += 1
            return {"value": await self.answer(number, self.tries[number])}, Usage(2, 1, 0.0, 0.5, 1)

        body = await self.calls.make(role="judge", key=digest(number), endpoint=self.endpoint, worst_tokens=10, attempt=attempt)
        return body["value"]


def failing(error: CallError, times: int = 10**9) -> Callable[[int, int], Awaitable[object]]:
    async def answer(number: int, tried: int) -> object:
        if tried <= times:
            raise error
        return number

    return answer


# -- replay and sharing -----------------------------------------------------------------------------------------------


def test_one_attempt_for_all_who_ask() -> None:
    async def story() -> None:
        events: list[CallEvent] = []
        calls = Calls(MemoryTape(), on_event=events.append)
        ask = Caller(calls, failing(ServerFault("500"), times=0))
        assert list(await asyncio.gather(ask(1), ask(1), ask(1))) == [1, 1, 1]
        assert await ask(1) == 1
        assert dict(ask.tries) == {1: 1}
        assert calls.happened == {"started": 1, "shared": 2, "settled": 1, "replayed": 1}
        assert calls.counts == {"judge": 1} and calls.spent.total.tokens == 3
        assert [e.what for e in events] == ["shared", "shared", "started", "settled", "replayed"]

    simulate(story())


def test_one_waiter_cancelled_leaves_the_others_and_the_record() -> None:
    async def story() -> None:
        tape = MemoryTape()

        async def slow(number: int, tried: int) -> object:
            await asyncio.sleep(5)
            return number

        ask = Caller(Calls(tape), slow)
        first, second = asyncio.create_task(ask(1)), asyncio.create_task(ask(1))
        alone = asyncio.create_task(ask(2))
        await asyncio.sleep(1)
        first.cancel()
        alone.cancel()
        assert await second == 1
        await asyncio.sleep(0.1)
        assert ask.tries == {1: 1, 2: 1} and set(tape.entries) == {digest(1), digest(2)}
        assert first.cancelled() and alone.cancelled()

    simulate(story())


def test_a_recorded_failure_is_the_same_failure_again() -> None:
    async def story() -> None:
        for error, tries in ((BadRequest("too long"), 1), (Garbled("half"), 3), (RateLimited("slow", retry_after=2.0), 3)):
            ask = Caller(Calls(MemoryTape(), retry=Retry(attempts=3)), failing(error))
            for _ in range(2):
                with pytest.raises(type(error), match=str(error)):
                    await ask(1)
            assert ask.tries[1] == tries

    class Odd(BadRequest):
        """A library's own subclass, made otherwise than its base."""

        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} {two}")

    assert Odd.kind == BadRequest.kind
    simulate(story())


def test_what_is_returned_first_is_what_replay_returns() -> None:
    class Model:
        identity, endpoint = "m", ENDPOINT

        async def complete(self, request: ChatRequest) -> Completion:
            return Completion("key sk-abcdefghijklmnop1234", Usage(5, 3, None, 0.1234567891, 1), "length", (("A", -0.1), ("B", -2.25)))

    class Student:
        identity, endpoint = "a", ENDPOINT

        async def run(self, task: Task) -> Attempt:
            return Attempt("hunter2-hunter2 {x}", Usage(1, 1, 0.1, 1 / 3, 1), messages=(Message("user", "\ud800 é"),))

    async def story() -> None:
        secrets.remember("hunter2-hunter2")
        calls = Calls(MemoryTape())
        model, student = calls.model(Model(), "judge"), calls.agent(Student())
        request, task = ChatRequest((Message("user", "?"),)), Task(Question("1", "q"))
        first, attempt = await model.complete(request), await student.run(task)
        assert first == await model.complete(request) and attempt == await student.run(task)
        assert first.text == "key [redacted]" and first.usage.seconds == 0.123457 and first.logprobs == (("A", -0.1), ("B", -2.25))
        assert attempt.output == "[redacted] {x}" and attempt.messages[0].content == "\ud800 é"
        assert (model.identity, model.endpoint, student.identity, student.endpoint) == ("m", ENDPOINT, "a", ENDPOINT)
        assert calls.counts == {"judge": 1, "student": 1}
        await calls.model(Model(), "teacher").complete(request)  # another role is another call
        await student.run(Task(Question("1", "q"), sample=1))
        assert calls.counts == {"judge": 1, "student": 2, "teacher": 1}

    simulate(story())


def test_an_answer_that_is_not_a_number_is_garbled() -> None:
    async def story() -> None:
        async def answer(number: int, tried: int) -> object:
            return float("nan")

        with pytest.raises(Garbled, match="not finite"):
            await Caller(Calls(MemoryTape(), retry=Retry(attempts=2)), answer)(1)

    simulate(story())


def test_an_agent_that_returns_a_failure_is_a_defect() -> None:
    class Student:
        identity, endpoint = "a", ENDPOINT

        async def run(self, task: Task) -> Attempt:
            return Attempt.failed("timeout", "late")

    async def story() -> None:
        with pytest.raises(ContractError, match="must raise a CallError"):
            await Calls(MemoryTape()).agent(Student()).run(Task(Question("1", "q")))

    simulate(story())


def test_rollouts_of_a_slot_are_those_no_earlier_slot_used() -> None:
    class Student:
        identity, endpoint = "a", ENDPOINT

        async def run(self, task: Task) -> Attempt:
            await asyncio.sleep(random.random())
            return Attempt(task.question.text)

    async def story() -> list[int]:
        calls = Calls(MemoryTape(), concurrency=3)
        student = calls.agent(Student())

        async def slot(n: int) -> None:
            SLOT.set(n)
            await asyncio.gather(*[student.run(Task(Question("1", str(q)))) for q in (0, 1, n, n + 1)])

        await asyncio.gather(*[slot(n) for n in random.sample(range(5), 5)])
        return [calls.rollouts(n) for n in range(5)]

    for _ in range(20):
        assert simulate(story()) == [2, 1, 1, 1, 1]


# -- retries and deadlines --------------------------------------------------------------------------------------------


def test_transient_errors_are_retried_permanent_ones_never() -> None:
    async def story() -> None:
        events: list[CallEvent] = []
        ask = Caller(Calls(MemoryTape(), on_event=events.append), failing(ServerFault("500"), times=5))
        assert await ask(1) == 1 and ask.tries[1] == 6
        assert [e.reason for e in events if e.what == "retried"] == ["server_fault: 500"] * 5
        for error in (AuthRefused("401"), BadRequest("400"), EmptyAnswer("nothing"), AgentCrashed("it raised")):
            ask = Caller(Calls(MemoryTape()), failing(error))
            with pytest.raises(type(error)):
                await ask(1)
            assert ask.tries[1] == 1

    simulate(story())


def test_waits_grow_and_hold_no_place() -> None:
    async def story() -> float:
        async def answer(number: int, tried: int) -> object:
            if number == 0:
                raise ServerFault("500")
            await asyncio.sleep(0.001)
            return number

        ask = Caller(Calls(MemoryTape(), concurrency=1, retry=Retry(attempts=11)), answer, Endpoint("e", max_concurrency=1))
        poor = asyncio.create_task(ask(0))
        await asyncio.gather(*[ask(n) for n in range(1, 300)])
        assert not poor.done() and ask.tries[0] < 6  # the others were served meanwhile
        with pytest.raises(ServerFault):
            await poor
        return now()

    spans = [simulate(story()) for _ in range(20)]
    ceiling = sum(min(20.0, 0.25 * 2**n) for n in range(10))
    assert 0.3 * ceiling < sum(spans) / 20 < 0.7 * ceiling  # full jitter: half of the ceiling on average
    assert max(spans) < ceiling + 1


def test_thirty_percent_faults_change_nothing_and_never_trip_the_breaker() -> None:
    async def story(faults: float) -> list[object]:
        chance = random.Random(3)

        async def answer(number: int, tried: int) -> object:
            await asyncio.sleep(chance.random())
            if chance.random() < faults:
                raise chance.choice([RateLimited("429"), RateLimited("429", 1.0), ServerFault("500"), CallTimeout("late"), Garbled("half")])
            return number

        calls = Calls(MemoryTape(), concurrency=32)
        ask = Caller(calls, answer, Endpoint("e", max_concurrency=32))
        answers = await asyncio.gather(*[ask(n) for n in range(1500)])
        assert calls.happened["failed"] == 0
        return list(answers)

    assert simulate(story(0.3)) == simulate(story(0.0))


def test_a_dripping_server_is_ended() -> None:
    """A real server on loopback that sends a byte now and then, for ever."""

    async def story() -> None:
        ended = asyncio.Event()

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while not reader.at_eof():
                    writer.write(b".")
                    await writer.drain()
                    await asyncio.wait([asyncio.ensure_future(reader.read(1))], timeout=0.02)
            except ConnectionError:
                pass
            finally:
                writer.close()
                ended.set()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def answer(number: int, tried: int) -> object:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return (await reader.read(-1)).decode()
            finally:
                writer.close()

        ask = Caller(Calls(MemoryTape(), retry=Retry(attempts=2, first_wait=0)), answer, Endpoint("drip", timeout=0.15))
        with pytest.raises(CallTimeout, match=r"within 0\.15 s"):
            await ask(1)
        assert ask.tries[1] == 2
        await ended.wait()
        server.close()

    asyncio.run(story())


def test_a_timeout_of_the_callers_own_is_not_taken_for_ours() -> None:
    async def story() -> None:
        async def answer(number: int, tried: int) -> object:
            raise TimeoutError("of its own")

        with pytest.raises(TimeoutError, match="of its own"):
            await Caller(Calls(MemoryTape()), answer)(1)

    simulate(story())


# -- limits -----------------------------------------------------------------------------------------------------------


class Server:
    """Takes a second for an answer; more than `room` at once, or a closed door, is a quick 429."""

    def __init__(self, room: int, retry_after: float | None = None) -> None:
        self.room, self.retry_after = room, retry_after
        self.inside = self.most = 0
        self.starts: list[float] = []
        self.served: list[float] = []
        self.closed_until = 0.0

    async def __call__(self, number: int, tried: int) -> object:
        self.starts.append(now())
        if self.inside >= self.room or now() < self.closed_until:
            await asyncio.sleep(0.05)  # the wire
            raise RateLimited("429", self.retry_after)
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(1.0)
        self.inside -= 1
        self.served.append(now())
        return number


def test_concurrency_is_bounded_over_all_and_per_endpoint() -> None:
    async def story() -> None:
        calls = Calls(MemoryTape(), concurrency=5)
        small, large = Server(99), Server(99)
        a, b = Caller(calls, small, Endpoint("small", max_concurrency=2)), Caller(calls, large, Endpoint("large", max_concurrency=9))
        await asyncio.gather(*[a(n) for n in range(20)], *[b(n) for n in range(100, 160)])
        assert (small.most, large.most <= 5) == (2, True) and large.most >= 3
        same = Caller(calls, large, Endpoint("large", max_concurrency=1))  # another port of the same endpoint, stricter
        large.most = 0
        await asyncio.gather(*[same(n) for n in range(200, 210)])
        assert large.most == 1

    simulate(story())


def test_requests_per_minute() -> None:
    async def story() -> None:
        server = Server(99)
        ask = Caller(Calls(MemoryTape()), server, Endpoint("e", requests_per_minute=30))
        await asyncio.gather(*[ask(n) for n in range(60)])
        for start in server.starts:
            assert sum(start <= s < start + 60.0 - 1e-6 for s in server.starts) <= 30
        assert server.starts[-1] - server.starts[0] < 121

    simulate(story())


def test_a_429_storm_shrinks_what_is_in_flight_and_it_recovers() -> None:
    async def story() -> None:
        server = Server(16)
        ask = Caller(Calls(MemoryTape(), retry=Retry(attempts=100), concurrency=64), server, Endpoint("e", max_concurrency=16))
        work = [asyncio.create_task(ask(n)) for n in range(2500)]
        await asyncio.sleep(20)
        before = len(server.served) / 20
        server.room = 1
        await asyncio.sleep(60)
        storm = [s for s in server.starts if 50 <= s < 80]
        answered = [s for s in server.served if 50 <= s < 80]
        assert len(storm) < 3 * len(answered) + 10, (len(storm), len(answered))  # few requests are wasted
        server.room = 16
        await asyncio.sleep(60)
        after = sum(130 <= s < 140 for s in server.served) / 10
        assert before > 15 and after >= 0.8 * before, (before, after)
        await asyncio.gather(*work)

    simulate(story())


def test_the_earliest_slot_is_served_first() -> None:
    """Eight calls of late slots wait when the first slot asks: it gets the next free seat."""

    async def story() -> None:
        order: list[int] = []

        async def answer(number: int, tried: int) -> object:
            order.append(number)
            await asyncio.sleep(1.0)
            return number

        ask = Caller(Calls(MemoryTape(), concurrency=2), answer, Endpoint("e", max_concurrency=2))

        async def slot(n: int) -> None:
            SLOT.set(n)
            await ask(n)

        work = [asyncio.create_task(slot(n)) for n in (9, 8, 7, 6, 5, 4, 3, 2)]
        await asyncio.sleep(0.5)
        work.append(asyncio.create_task(slot(1)))
        await asyncio.gather(*work)
        assert order[:2] == [9, 8] and order.index(1) <= 3  # one call, 7, was on deck by then
        assert order[4:] == sorted(order[4:])

    simulate(story())


def test_calls_are_on_record_before_they_have_a_seat() -> None:
    """A disk of one second beside calls of ten: the seats stay taken."""

    async def story() -> None:
        class SlowTape(MemoryTape):
            async def intend(self, key: str, role: Role, slot: int, worst_tokens: int = 0) -> None:
                await asyncio.sleep(1.0)
                await super().intend(key, role, slot, worst_tokens)

        async def answer(number: int, tried: int) -> object:
            await asyncio.sleep(7.0 + number % 7)
            return number

        ask = Caller(Calls(SlowTape(), concurrency=4), answer, Endpoint("e", max_concurrency=4))
        await asyncio.gather(*[ask(n) for n in range(42)])
        work = sum(7.0 + n % 7 for n in range(42)) / 4
        assert now() < 1.0 + work + 7.0, (now(), work)  # the first second, and the end, when seats are left; not a second a call

    simulate(story())


def test_a_burst_halves_the_limit_once() -> None:
    lane = Lane(Endpoint("e", max_concurrency=16), Retry())
    burst = [lane.begin() for _ in range(16)]
    for number in burst:
        lane.end(number, RateLimited("429"))
    assert lane.limit == 8
    lane.end(lane.begin(), RateLimited("429"))
    assert lane.limit == 4
    for _ in range(1000):
        lane.end(lane.begin(), None)
    assert lane.limit == 16


def test_retry_after_is_obeyed_by_every_call_on_the_endpoint() -> None:
    async def story() -> None:
        server = Server(99, retry_after=30.0)
        server.closed_until = 25.0
        ask = Caller(Calls(MemoryTape()), server)
        assert list(await asyncio.gather(ask(1), ask(2))) == [1, 2]
        assert server.starts[:2] == [0.0, 0.0] and all(s >= 30.0 for s in server.starts[2:])
        server.closed_until = now() + 5
        first = asyncio.create_task(ask(3))
        await asyncio.sleep(1)
        told = now()
        await asyncio.gather(first, ask(4))  # the fourth was never tried before, and waits with the third
        assert len(server.starts) == 7 and all(s >= told + 29.0 for s in server.starts[5:])

    simulate(story())


def test_a_burst_of_429s_does_not_trip_the_breaker() -> None:
    async def story() -> None:
        for retry_after in (None, 1.0):
            ask = Caller(Calls(MemoryTape(), concurrency=200), Server(4, retry_after), Endpoint("e", max_concurrency=200))
            assert len(await asyncio.gather(*[ask(n) for n in range(300)])) == 300

    simulate(story())


# -- the end of a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("error", [ServerFault("500"), RateLimited("429"), RateLimited("429", 1.0), CallTimeout("late")])
def test_an_endpoint_that_only_fails_is_an_outage(error: CallError, concurrency: int) -> None:
    async def story() -> None:
        tape = MemoryTape()
        calls = Calls(tape, concurrency=concurrency, retry=Retry(attempts=100))
        ask = Caller(calls, failing(error), Endpoint("bad", max_concurrency=concurrency))
        results = await asyncio.gather(*[ask(n) for n in range(50)], return_exceptions=True)
        assert all(isinstance(r, Outage) for r in results)
        assert "endpoint 'bad' failed" in str(results[0]) and f"{error.kind}: {error}" in str(results[0])
        assert 20 <= sum(ask.tries.values()) <= 20 + 2 * concurrency
        assert tape.entries == {} and calls.happened["failed"] == 0
        with pytest.raises(Outage):
            await ask(99)
        assert ask.tries[99] == 0
        assert await Caller(calls, failing(error, times=0), Endpoint("good"))(1000) == 1000

    simulate(story())


def test_a_call_out_of_attempts_in_an_outage_is_not_a_failed_call() -> None:
    """The second attempts of a burst run out together with the endpoint: none is recorded."""

    async def story() -> None:
        tape = MemoryTape()

        async def answer(number: int, tried: int) -> object:
            await asyncio.sleep(0.1)
            raise ServerFault("500")

        ask = Caller(Calls(tape, concurrency=30, retry=Retry(attempts=2)), answer, Endpoint("e", max_concurrency=30))
        results = await asyncio.gather(*[ask(n) for n in range(30)], return_exceptions=True)
        assert {type(r) for r in results} == {Outage} and tape.entries == {}

    simulate(story())


def test_a_refused_key_ends_the_run_after_three_requests() -> None:
    async def story() -> None:
        ask = Caller(Calls(MemoryTape()), failing(AuthRefused("401")))
        for n, error in enumerate((AuthRefused, AuthRefused, AuthRefused, Outage, Outage)):
            with pytest.raises(error):
                await ask(n)
        assert sum(ask.tries.values()) == 3

    simulate(story())


def test_an_agent_that_only_crashes_is_alive() -> None:
    async def story() -> None:
        ask = Caller(Calls(MemoryTape()), failing(AgentCrashed("it raised")))
        assert all(isinstance(r, AgentCrashed) for r in await asyncio.gather(*[ask(n) for n in range(60)], return_exceptions=True))

    simulate(story())


def test_a_server_that_asks_for_too_much_patience_is_an_outage() -> None:
    async def story() -> None:
        with pytest.raises(Outage, match="asks to wait 3600 s"):
            await Caller(Calls(MemoryTape()), failing(RateLimited("quota", 3600.0)))(1)

    simulate(story())


def witnessed(settle: Callable[[str, Entry], Awaitable[None]], dropped: list[Entry]) -> Callable[[str, Entry], Awaitable[None]]:
    async def watch(key: str, entry: Entry) -> None:
        if entry.status == "dropped":
            dropped.append(entry)
        await settle(key, entry)

    return watch


def test_drain_lets_attempts_end_and_begins_none() -> None:
    async def story() -> None:
        tape = MemoryTape()

        async def answer(number: int, tried: int) -> object:
            if number == 0:
                raise ServerFault("500")
            await asyncio.sleep(10)
            return number

        calls = Calls(tape, concurrency=4)
        ask = Caller(calls, answer, Endpoint("e", max_concurrency=3))
        dropped: list[Entry] = []
        tape.settle = witnessed(tape.settle, dropped)  # type: ignore[method-assign]
        work = [asyncio.create_task(ask(n)) for n in range(10)]
        await asyncio.sleep(5)
        calls.drain()
        with pytest.raises(Draining):
            await ask(50)
        await calls.finish()
        results = await asyncio.gather(*work, return_exceptions=True)
        answered = [r for r in results if isinstance(r, int)]
        assert 1 <= len(answered) <= 3 and sum(isinstance(r, Draining) for r in results) == 10 - len(answered)
        assert isinstance(results[0], Draining)  # it was between two attempts: given up, not failed
        assert now() < 20 and set(tape.entries) == {digest(n) for n in answered}
        on_deck = [e for e in dropped if e.body["kind"] == "never_made"]
        assert 1 <= len(on_deck) <= 2 and {e.attempts for e in on_deck} == {0}
        assert [e.body["kind"] for e in dropped if e.attempts] == ["server_fault"]
        assert await ask(answered[0]) == answered[0]  # what is recorded is still answered

    simulate(story())


def test_budgets_refuse_before_the_call() -> None:
    async def story() -> None:
        events: list[CallEvent] = []
        ask = Caller(Calls(MemoryTape(), limits=Limits(tokens=25), on_event=events.append), Server(99))
        assert await asyncio.gather(*[ask(n) for n in range(4)]) == [0, 1, 2, 3]  # two at a time: the others wait for what is given back
        assert ask.calls.spent.total.tokens == 12
        assert [await ask(n) for n in (7, 8, 9)] == [7, 8, 9]
        for _ in range(2):  # recorded: the answer to this call does not depend on when it is asked for
            with pytest.raises(BudgetExhausted):
                await ask(10)
        assert ask.tries.total() == 7 and ask.calls.spent.total.tokens == 21
        said = [event.reason for event in events if event.what == "failed"]
        assert said == ["budget_exhausted: the token limit of 25 leaves no room for a judge call of up to 6 tokens"]

    simulate(story())


def test_unknown_usage_counts_as_the_worst_case_under_a_limit() -> None:
    async def story() -> None:
        calls = Calls(MemoryTape(), limits=Limits(tokens=100))

        async def attempt() -> Reply:
            return {}, Usage(None, None)

        await calls.make(role="judge", key="k", endpoint=ENDPOINT, worst_tokens=60, attempt=attempt)
        with pytest.raises(BudgetExhausted):
            await calls.make(role="judge", key="l", endpoint=ENDPOINT, worst_tokens=60, attempt=attempt)

    simulate(story())


# -- a hard limit on time ---------------------------------------------------------------------------------------------


class Slow(ScriptedAgent):
    """Takes `seconds` for an answer."""

    def __init__(self, seconds: float) -> None:
        super().__init__([])
        self.seconds, self.asked, self.ended = seconds, 0, 0

    async def run(self, task: Task) -> Attempt:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        self.ended += 1
        return Attempt("late")


@pytest.mark.parametrize(("concurrency", "asked"), [(1, 1), (64, 8)])
def test_at_the_deadline_calls_end_and_are_refused(concurrency: int, asked: int) -> None:
    """Those under way, those that wait for a seat, and those that come later: all within a moment, and on record."""
    agent, tape = Slow(30.0), MemoryTape()
    calls = Calls(tape, concurrency=concurrency, limits=Limits(seconds=0.2))
    student = calls.agent(agent)

    async def story() -> None:
        began = asyncio.get_running_loop().time()
        tasks = [student.run(Task(Question("e", f"q{n}"))) for n in range(8)]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        late = await asyncio.gather(student.run(Task(Question("e", "later"))), return_exceptions=True)
        assert all(isinstance(a, BudgetExhausted) and "0.2 seconds" in str(a) for a in [*answers, *late])
        assert asyncio.get_running_loop().time() - began < 5
        assert (agent.asked, agent.ended) == (asked, 0)

    asyncio.run(story())
    assert calls.happened["failed"] == 9


def test_a_retry_does_not_outlast_the_deadline() -> None:
    agent = ScriptedAgent([RateLimited("wait", 400.0)] * 3)
    calls = Calls(MemoryTape(), limits=Limits(seconds=0.2), retry=Retry(first_wait=60.0, longest_wait=60.0))

    async def story() -> None:
        with pytest.raises(BudgetExhausted):
            await asyncio.wait_for(calls.agent(agent).run(Task(Question("e", "q"))), 5)

    asyncio.run(story())


def test_a_recorded_error_is_of_the_class_that_named_its_kind() -> None:
    class Narrower(BadRequest):
        def __init__(self, message: str, status: int) -> None:
            super().__init__(message)

    error = recorded_error(error_body(Narrower("no", 300)))
    assert type(error) is BadRequest and str(error) == "no"
