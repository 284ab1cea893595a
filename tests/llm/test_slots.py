"""The plan of prefix reuse, on a model of what a server's slot does: values that remember how they were batched."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.llm.slots import GUARD, SHORTEST_PREFIX, Prompt, Slots, Step, choose, shared

Value = tuple[object, ...]


class FakeServer:
    """Keeps, for each slot, tokens and their values; a value is made of the token, what stood before it, and its batch."""

    def __init__(self) -> None:
        self.slots: dict[int, list[tuple[int, int]]] = {}

    def post(self, step: Step, generated: tuple[int, ...]) -> tuple[int, int]:
        """(tokens reused, value of the last prompt token), as llama.cpp does it: the last token is always computed again."""
        held = self.slots.get(step.slot, []) if step.reused else []
        reused = min(shared([t for t, _ in held], step.tokens), len(step.tokens) - 1)
        kept = held[:reused]
        batch = step.tokens[reused:]
        for n, token in enumerate(batch):
            kept.append((token, hash((tuple(kept[:reused]), batch[: n + 1], len(batch)))))
        value = kept[-1][1]
        self.slots[step.slot] = kept + [(token, hash((value, token))) for token in generated]
        return reused, value


def answer(server: FakeServer, slots: Slots, prompt: Prompt, generated: tuple[int, ...]) -> int:
    value = 0
    steps = slots.plan(prompt)
    for step in steps:
        slots.forget(step.slot)
        reused, value = server.post(step, generated if step is steps[-1] else ())
        assert reused == step.reused
        slots.done(step, prompt)
    return value


PREFIXES = [(*range(1, 1 + n), 90 + k) for n in (4, SHORTEST_PREFIX, 30) for k in (0, 1)]
prompts = st.builds(
    lambda prefix, suffix: Prompt(prefix + tuple(suffix), len(prefix)),
    st.sampled_from(PREFIXES),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
calls = st.lists(st.tuples(prompts, st.lists(st.integers(0, 3), max_size=3).map(tuple)), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(calls, st.integers(2, 5))
def test_an_answer_does_not_depend_on_what_was_asked_before(history: list[tuple[Prompt, tuple[int, ...]]], count: int) -> None:
    server, slots = FakeServer(), Slots(count)
    for prompt, generated in history:
        assert answer(server, slots, prompt, generated) == answer(FakeServer(), Slots(count), prompt, generated)


def test_reuse_as_much_as_matches_does_depend_on_it() -> None:
    """The model of the server can tell: without the plan, the same prompt has two values."""
    one, other = Prompt((*range(1, 31), 1, 2), 30), Prompt((*range(1, 31), 1, 3), 30)
    server = FakeServer()
    fresh = server.post(Step(1, one.tokens, 1), ())
    server.post(Step(1, other.tokens, 1), ())
    assert server.post(Step(1, one.tokens, 1), ())[1] != fresh[1]


def test_a_known_prefix_costs_one_request_when_the_next_token_differs_and_two_when_it_does_not() -> None:
    slots = Slots(3)
    prefix = tuple(range(1, 31))

    def run(*suffix: int) -> list[Step]:
        prompt = Prompt(prefix + suffix, 30)
        steps = slots.plan(prompt)
        for step in steps:
            slots.done(step, prompt)
        return steps

    assert [s.tokens for s in run(7, 8)] == [(*prefix, GUARD), (*prefix, 7, 8)]
    assert [s.tokens for s in run(9)] == [(*prefix, 9)]
    assert [s.tokens for s in run(9, 1)] == [(*prefix, GUARD), (*prefix, 9, 1)]
    assert all(s.slot == 1 for s in run(5))


def test_the_least_recently_used_prefix_gives_way() -> None:
    slots = Slots(3)
    for first in (1, 2, 1, 3):
        prompt = Prompt((first,) * 20 + (9,), 20)
        for step in slots.plan(prompt):
            slots.done(step, prompt)
    assert {p.tokens[0] for p in slots.held.values()} == {1, 3}


def test_choose_takes_its_own_prefix_then_a_free_one_and_never_starves() -> None:
    waiting = ["a", "b", "c"]
    assert choose(waiting, 0, frozenset("c"), frozenset("a")) == 2
    assert choose(waiting, 0, frozenset(), frozenset("a")) == 1
    assert choose(waiting, 0, frozenset(), frozenset("abc")) == 0
    assert choose(waiting, 16, frozenset("c"), frozenset("a")) == 0
