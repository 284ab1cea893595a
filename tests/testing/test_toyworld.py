"""The toy world keeps its promises: a known optimum, an analytic truth, answers that are a function of their address."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.calls import Calls, MemoryTape
from gepa_atlas.errors import BadRequest, ConfigError, Transient
from gepa_atlas.ports import Agent, ChatModel, ChatRequest
from gepa_atlas.testing.provider import FakeProvider, Faults, ProviderSettings, read_book, uniform
from gepa_atlas.testing.toyworld import (
    SEED_GUIDANCE,
    ToyWorld,
    WorldSettings,
    call_digest,
    toy_agent,
    toy_examples,
    toy_fragments,
    toy_model,
)
from gepa_atlas.types import Attempt, Demo, Guidance, Message, Question, Task

WORLD = {"seed": 3, "noise": 0.0}


def rules_of(world: ToyWorld) -> str:
    return "\n".join(rule.sentence for rule in world.rules)


def demos_of(world: ToyWorld) -> tuple[Demo, ...]:
    train = [e for e in world.examples() if e.split == "train"]
    return tuple(Demo.of(e) for e in train[: len(world.kinds)])


def test_a_world_is_a_function_of_its_settings() -> None:
    one, two = ToyWorld(WorldSettings(seed=5)), ToyWorld(WorldSettings(seed=5))
    assert one.examples() == two.examples()
    assert one.fragments() == two.fragments()
    assert one.identity == two.identity
    assert ToyWorld(WorldSettings(seed=6)).fragments() != one.fragments()


def test_examples_are_split_without_overlap_and_every_question_is_asked_once() -> None:
    examples = toy_examples({"seed": 1, "examples": 50})
    sizes = {split: sum(e.split == split for e in examples) for split in ("train", "val", "test")}
    assert sizes == {"train": 15, "val": 15, "test": 20}
    assert len({e.id for e in examples}) == len({e.question for e in examples}) == 50
    assert all(e.answers and e.answer for e in examples)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_seed_is_poor_and_the_rules_are_worth_having(seed: int, noise: float) -> None:
    world = ToyWorld(WorldSettings(seed=seed, noise=noise))
    best = world.optimum()
    assert world.truth(SEED_GUIDANCE) < 0.15
    assert best.value > 0.95
    assert world.truth(best.text, best.demos) == best.value


def test_no_set_of_sentences_beats_the_optimum() -> None:
    world = ToyWorld(WorldSettings(seed=2, rules=4, decoys=3))
    sentences = world.fragments()
    every = ["\n".join(chosen) for size in range(len(sentences) + 1) for chosen in combinations(sentences, size)]
    assert max(world.truth(text) for text in every) == pytest.approx(world.optimum().value)


def test_decoys_and_length_hurt() -> None:
    world = ToyWorld(WorldSettings(seed=4))
    rules = rules_of(world)
    assert world.truth(rules + "\n" + "\n".join(d.sentence for d in world.decoys)) < world.truth(rules)
    assert world.truth(rules + "\n" + "please " * 1000) < world.truth(rules) - 0.2


def test_kinds_need_demonstrations_with_the_right_answer() -> None:
    world = ToyWorld(WorldSettings(seed=4, kinds=3))
    rules, demos = rules_of(world), demos_of(world)
    wrong = tuple(Demo(d.example_id, d.question, "nonsense") for d in demos)
    assert world.truth(rules, demos) > 0.95
    assert world.truth(rules) < 0.3
    assert world.truth(rules, wrong) < 0.3
    assert len(world.optimum().demos) == 3


def test_a_flat_world_has_no_headroom() -> None:
    world = ToyWorld(WorldSettings(seed=4, effect=0.0, noise=1.0))
    assert world.optimum().value == pytest.approx(world.truth(""), abs=0.01)


def test_the_student_succeeds_as_often_as_the_truth_says() -> None:
    world = ToyWorld(WorldSettings(seed=7, noise=2.0, examples=400))
    guidance = Guidance(rules_of(world).split("\n")[0])
    test = [e for e in world.examples() if e.split == "test"]
    hits = [world.answer(guidance, e.question, sample) == e.answer for e in test for sample in range(10)]
    assert sum(hits) / len(hits) == pytest.approx(world.truth(guidance.text), abs=0.04)


def test_without_noise_the_answer_is_right_exactly_where_the_chance_is_one() -> None:
    world = ToyWorld(WorldSettings(seed=7, noise=0.0))
    guidance = Guidance("\n".join(world.fragments()[:5]))
    for example in world.examples():
        chance = world.chance(guidance, example.question)
        assert chance in (0.0, 1.0)
        assert {world.answer(guidance, example.question, s) == example.answer for s in range(3)} == {chance == 1.0}


@given(text=st.text(), question=st.text(), sample=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_any_text_is_answered_and_always_in_the_same_way(text: str, question: str, sample: int) -> None:
    world = ToyWorld(WorldSettings(seed=1, examples=10))
    first = world.answer(Guidance(text), question, sample)
    assert first and first == world.answer(Guidance(text), question, sample)


def test_identity_covers_what_changes_answers_and_nothing_else(tmp_path: Path) -> None:
    plain = toy_agent({"world": WORLD})
    dressed = toy_agent(
        {
            "world": WORLD | {"examples": 50},
            "latency": 1,
            "faults": {"rate": 0.3, "seed": 2},
            "ledger": str(tmp_path / "book"),
        }
    )
    assert plain.identity == dressed.identity
    assert plain.identity != toy_agent({"world": WORLD | {"noise": 1.0}}).identity
    assert isinstance(plain, Agent)
    assert isinstance(toy_model({}), ChatModel)


def test_unknown_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"toyworld\.world\.nois: unknown key; did you mean 'noise'"):
        toy_agent({"world": {"nois": 1}})
    assert toy_fragments({"seed": 1, "rules": 2, "decoys": 1}) == ToyWorld(WorldSettings(seed=1, rules=2, decoys=1)).fragments()


async def call_until_answered(agent: Agent, task: Task, tries: int = 40) -> Attempt:
    for _ in range(tries):
        try:
            return await agent.run(task)
        except Transient:
            continue
    raise AssertionError("never answered")


def test_faults_are_typed_and_a_retry_gets_the_undisturbed_answer(tmp_path: Path) -> None:
    book = tmp_path / "book"
    calm = toy_agent({"world": WORLD})
    rough = toy_agent({"world": WORLD, "faults": {"rate": 0.5, "seed": 9}, "ledger": str(book)})
    tasks = [Task(e.public(), Guidance(SEED_GUIDANCE)) for e in toy_examples(WORLD)[:40]]

    async def story() -> None:
        for task in tasks:
            assert (await call_until_answered(rough, task)).output == (await calm.run(task)).output

    asyncio.run(story())
    seen = read_book(book)
    assert seen.charged == seen.answered
    assert set(seen.charged.values()) == {1}  # a fault costs nothing
    assert set(seen.charged) == {call_digest(calm.identity, t) for t in tasks}


def test_the_book_names_calls_as_the_run_s_ledger_does(tmp_path: Path) -> None:
    book, tape = tmp_path / "book", MemoryTape()
    tasks = [Task(e.public(), Guidance("x"), sample) for e in toy_examples(WORLD)[:5] for sample in range(2)]

    async def story() -> None:
        student = Calls(tape).agent(toy_agent({"world": WORLD, "ledger": str(book)}))
        for _ in range(2):  # the second time everything is replayed
            await asyncio.gather(*(student.run(task) for task in tasks))

    asyncio.run(story())
    assert set(read_book(book).charged) == set(tape.entries)
    assert set(read_book(book).charged.values()) == {1}


def test_every_kind_of_fault_is_drawn_at_its_rate() -> None:
    provider = FakeProvider(ProviderSettings(faults=Faults(rate=0.3)))
    faults = [provider.fault(f"call {i}", attempt) for i in range(1000) for attempt in range(2)]
    kinds = [f.kind for f in faults if f is not None]
    assert len(kinds) / len(faults) == pytest.approx(0.3, abs=0.04)
    assert set(kinds) == {"rate_limited", "server_fault", "timeout", "garbled"}
    always = FakeProvider(ProviderSettings(faults=Faults(rate=1.0, kinds=(400,))))
    with pytest.raises(BadRequest):
        asyncio.run(always.serve("x", lambda s: s))


def test_latency_is_drawn_around_its_mean_and_stragglers_take_ten_times_as_long() -> None:
    fast = FakeProvider(ProviderSettings(latency=0.1))
    slow = FakeProvider(ProviderSettings(latency=0.1, stragglers=1.0))
    seconds = [fast.seconds(str(i), 0) for i in range(4000)]
    assert sum(seconds) / len(seconds) == pytest.approx(0.1, rel=0.1)
    assert slow.seconds("7", 0) == pytest.approx(10 * fast.seconds("7", 0))
    assert FakeProvider(ProviderSettings(latency=0.1, latency_seed=1)).seconds("7", 0) != fast.seconds("7", 0)


def test_a_call_cut_half_way_was_charged_and_not_answered(tmp_path: Path) -> None:
    book = tmp_path / "book"
    agent = toy_agent({"world": WORLD, "latency": 1000, "ledger": str(book)})
    task = Task(Question("q", "Ticket 1 names x."))

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(agent.run(task), 0.01)

    asyncio.run(story())
    assert dict(read_book(book).charged) == {call_digest(agent.identity, task): 1}
    assert not read_book(book).answered
    assert not read_book(tmp_path / "absent").charged


def test_the_student_behind_a_chat_model_reads_system_text_and_demonstration_turns() -> None:
    world = ToyWorld(WorldSettings(seed=3, noise=0.0, kinds=2))
    model = toy_model({"world": {"seed": 3, "noise": 0.0, "kinds": 2}})
    shown = [m for d in demos_of(world) for m in (Message("user", d.question), Message("assistant", d.answer))]
    example = world.examples()[-1]

    def ask(*messages: Message) -> str:
        return asyncio.run(model.complete(ChatRequest((*messages, Message("user", example.question))))).text

    system = Message("system", rules_of(world))
    assert ask(system, *shown) == example.answer
    assert ask(system) != example.answer
    assert ask(*shown) != example.answer


def test_uniform_is_the_same_on_every_platform() -> None:
    assert uniform("a", 1) == pytest.approx(0.22310378295646136, abs=1e-15)
