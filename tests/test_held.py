"""In a run, a failure that may be an outage's first is held until it is known to be the call's own, or the endpoint is given up."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from gepa_atlas.budget import Limits
from gepa_atlas.calls import Calls, Draining, MemoryTape, Retry
from gepa_atlas.errors import AuthRefused, BadRequest, BudgetExhausted, CallError, NotFound, Outage, ServerFault
from gepa_atlas.ports import Endpoint
from gepa_atlas.types import digest
from tests.test_calls import Caller, failing, now, simulate


def held(**given: Any) -> Calls:
    calls = Calls(MemoryTape(), **given)
    calls.use(MemoryTape())
    return calls


def odd(error: CallError, *numbers: int) -> Any:
    async def answer(number: int, tried: int) -> object:
        await asyncio.sleep(0.1)
        if number in numbers:
            raise error
        return number

    return answer


@pytest.mark.parametrize("error", [ServerFault("500"), AuthRefused("401"), NotFound("404")])
def test_a_request_that_fails_alone_is_told_by_one_that_was_answered(error: CallError) -> None:
    async def story() -> None:
        calls = held(retry=Retry(attempts=3))
        ask = Caller(calls, odd(error, 2))
        assert await ask(1) == 1
        with pytest.raises(type(error)):
            await ask(2)
        assert ask.tries[1] == 2, "once to be answered, once to find out"
        assert ask.tries[2] == (3 if isinstance(error, ServerFault) else 1)
        assert calls.spent.total.tokens == 6 and calls.happened["retried"] >= 1, "a probe is paid and in the trace"
        with pytest.raises(type(error)):
            await ask(2)
        assert ask.tries.total() == 2 + ask.tries[2]

    simulate(story())


def test_others_under_way_tell_it_for_nothing() -> None:
    async def story() -> None:
        ask = Caller(held(concurrency=2, retry=Retry(attempts=1)), odd(ServerFault("500"), 3), Endpoint("e", max_concurrency=2))
        results = await asyncio.gather(*(ask(n) for n in range(12)), return_exceptions=True)
        assert [type(r) for r in results] == [int] * 3 + [ServerFault] + [int] * 8
        assert set(ask.tries.values()) == {1}

    simulate(story())


def test_a_refusal_of_the_request_itself_waits_for_nobody() -> None:
    async def story() -> None:
        ask = Caller(held(), failing(BadRequest("400")))
        with pytest.raises(BadRequest):
            await ask(1)
        assert ask.tries.total() == 1 and now() == 0

    simulate(story())


@pytest.mark.parametrize("draw", range(12))
def test_nobody_hears_of_an_outage_as_a_failure(draw: int) -> None:
    """Whenever it begins, however many are under way: each call is answered or comes to an Outage, and everybody comes to an end."""

    async def story() -> None:
        random_ = random.Random(draw)
        last, width, count = random_.randrange(1, 40), random_.choice((1, 2, 8, 50)), 0

        async def answer(number: int, tried: int) -> object:
            nonlocal count
            count += 1
            down = count > last
            await asyncio.sleep(random_.random())
            if down:
                raise random_.choice([ServerFault("500"), NotFound("404"), AuthRefused("401")])
            return number

        calls = held(concurrency=width, retry=Retry(attempts=random_.choice((1, 2, 12))))
        ask = Caller(calls, answer, Endpoint("e", max_concurrency=width))
        results = await asyncio.gather(*(ask(n) for n in range(60)), return_exceptions=True)
        assert {type(r) for r in results} <= {int, Outage} and sum(isinstance(r, int) for r in results) <= last
        assert calls.happened["failed"] == 0

    simulate(story())


def test_an_endpoint_that_never_answered_is_asked_until_it_is_given_up() -> None:
    async def story() -> None:
        ask = Caller(held(retry=Retry(attempts=1, breaker=5)), failing(ServerFault("500")))
        with pytest.raises(Outage, match="5 times in a row"):
            await ask(1)
        late = Caller(held(retry=Retry(attempts=1, breaker=5)), failing(ServerFault("500"), times=3))
        assert await late(1) == 1

    simulate(story())


def test_an_answer_of_an_earlier_process_can_be_asked_again() -> None:
    async def story() -> None:
        tape = MemoryTape()
        assert await Caller(Calls(tape), odd(ServerFault("500"), 2))(1) == 1
        calls = Calls(MemoryTape(), retry=Retry(attempts=1))
        calls.use(tape)
        ask = Caller(calls, odd(ServerFault("500"), 2))
        assert await ask(1) == 1 and ask.tries.total() == 0
        with pytest.raises(ServerFault):
            await ask(2)
        assert dict(ask.tries) == {1: 1, 2: 1}
        assert set(tape.entries) == {digest(1), digest(2)} and tape.entries[digest(2)].status == "failed"

    simulate(story())


def test_a_run_that_stops_or_is_out_of_time_does_not_wait_for_a_held_call() -> None:
    async def story() -> None:
        async def answer(number: int, tried: int) -> object:
            if number == 1 and tried == 1:
                return number
            await asyncio.sleep(1 if number == 2 else 1000)
            raise ServerFault("500")

        for limits in (Limits(), Limits(seconds=30)):
            calls = held(limits=limits, retry=Retry(attempts=1))
            ask = Caller(calls, answer, Endpoint("e", timeout=2000))
            assert await ask(1) == 1
            began, work = now(), asyncio.create_task(ask(2))
            await asyncio.sleep(5)
            assert not work.done()
            if limits.seconds is None:
                calls.drain()
            with pytest.raises(Draining if limits.seconds is None else BudgetExhausted):
                await work
            assert now() - began <= (1100 if limits.seconds is None else 31)  # an attempt under way ends, as in any drain

    simulate(story())


def test_inside_impatient_nothing_is_held() -> None:
    async def story() -> None:
        calls = held()
        with calls.impatient(), pytest.raises(AuthRefused):
            await Caller(calls, failing(AuthRefused("401")))(1)

    simulate(story())
