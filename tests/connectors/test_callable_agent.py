"""The python.callable provider with real files, modules, threads and coroutines."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import AgentCrashed, BadRequest, CallError, CallTimeout, ConfigError, EmptyAnswer, Garbled, RateLimited
from gepa_atlas.ports import Agent
from gepa_atlas.types import Attempt, Task
from tests.connectors.faults import no_model, task


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """An agent from the source of a file."""
    made = 0

    def build(code: str, name: str = "answer", **params: Any) -> Agent:
        nonlocal made
        made += 1
        (tmp_path / f"agent{made}.py").write_text(textwrap.dedent(code))
        spec = AgentSpec(provider="python.callable", params={"callable": f"agent{made}.py:{name}", **params})
        return build_agent(spec, build_model=no_model, base_dir=tmp_path)

    return build


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task("2 + 2?", "Be brief.", demos=(("1?", "1"),))))


def refusal(kind: type[CallError], built: Agent, says: str = ".", asked: Task | None = None) -> None:
    with pytest.raises(CallError, match=says) as caught:
        run(built, asked)
    assert type(caught.value) is kind, caught.value


PROMPT = "Be brief.\n\nQuestion: 1?\nAnswer: 1\n\n2 + 2?"


@pytest.mark.parametrize(
    ("code", "name", "expected"),
    [
        ("def answer(prompt): return prompt", "answer", PROMPT),
        ("def answer(anything): return anything", "answer", PROMPT),
        ("def answer(text, /): return text", "answer", PROMPT),
        ("answer = lambda text: text", "answer", PROMPT),
        ("async def answer(prompt): return prompt", "answer", PROMPT),
        ("def answer(prompt):\n    yield prompt[:9]\n    yield prompt[9:]", "answer", PROMPT),
        ("async def answer(prompt):\n    yield prompt[:9]\n    yield prompt[9:]", "answer", PROMPT),
        ("class Bot:\n    def __call__(self, prompt): return prompt", "Bot", PROMPT),
        ("class Bot:\n    async def __call__(self, prompt): return prompt", "Bot", PROMPT),
        ("class Bot:\n    def __init__(self): self.x = '!'\n    def ask(self, prompt): return prompt + self.x", "Bot.ask", PROMPT + "!"),
        ("class Bot:\n    @staticmethod\n    def ask(prompt): return prompt", "Bot.ask", PROMPT),
        ("class Bot:\n    @classmethod\n    def ask(cls, prompt): return prompt", "Bot.ask", PROMPT),
        ("class Bot:\n    def ask(self, prompt): return prompt\nbot = Bot()", "bot.ask", PROMPT),
        ("import functools\ndef f(a, prompt): return a + prompt\nanswer = functools.partial(f, '>')", "answer", ">" + PROMPT),
        ("def answer(prompt):\n    async def later(): return prompt\n    return later()", "answer", PROMPT),
        ("def answer(question, guidance): return guidance + '|' + question", "answer", "Be brief.\n\nQuestion: 1?\nAnswer: 1|2 + 2?"),
        ("def answer(question, guidance, demos): return repr((question, guidance, demos))", "answer", None),
        (
            "def answer(**all): return repr(sorted(all))",
            "answer",
            repr(sorted(("prompt", "question", "context", "guidance", "demos", "settings"))),
        ),
        ("def answer(prompt, retries=3): return prompt * (retries == 3)", "answer", PROMPT),
    ],
)
def test_shapes_of_callables(make: Any, code: str, name: str, expected: str | None) -> None:
    expected = expected or repr(("2 + 2?", "Be brief.", [{"question": "1?", "answer": "1"}]))
    attempt = run(make(code, name))
    assert attempt.output == expected
    assert attempt.usage.calls == 1


def test_guidance_as_an_argument_beside_the_prompt(make: Any) -> None:
    built = make("def answer(prompt, guidance): return prompt + '|' + guidance", guidance="field")
    assert run(built).output == "2 + 2?|Be brief.\n\nQuestion: 1?\nAnswer: 1"


def test_settings_are_given_to_who_declares_them(make: Any) -> None:
    assert run(make("def answer(prompt, settings): return repr(settings)"), task(heat=2)).output == "{'heat': 2}"
    with pytest.raises(BadRequest, match="'heat'"):
        run(make("def answer(prompt): return prompt"), task(heat=2))


def test_shapes_of_input_and_output_known_from_atlas(make: Any) -> None:
    built = make("def answer(d): return {'out': [d['text']]}", process_input="dict_wrapper", input_key="text", response_field="out.0")
    assert run(built).output == PROMPT
    built = make("def answer(p): return '{\"out\": 4}'", process_response="json", response_field="out")
    assert run(built).output == "4"
    refusal(Garbled, make("def answer(p): return 'four'", process_response="json", response_field="out"), "not JSON")


def test_hostile_text_passes_unchanged(make: Any, hostile: str) -> None:
    built = make("def answer(question, guidance, demos, context): return '\\0'.join([question, guidance, context, demos[0]['answer']])")
    asked = task(hostile, hostile, context=hostile, demos=((hostile, hostile),))
    assert run(built, asked).output == "\0".join([hostile] * 4)


# -- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("def answer(prompt): raise KeyError('model')", AgentCrashed, "KeyError: 'model'"),
        ("async def answer(prompt): return 1 / 0", AgentCrashed, "ZeroDivisionError: division by zero"),
        ("def answer(prompt):\n    yield 'The answer'\n    raise OSError('gone')", AgentCrashed, "OSError: gone"),
        ("import sys\ndef answer(prompt): sys.exit(3)", AgentCrashed, "SystemExit: 3"),
        ("def answer(prompt): raise TimeoutError('inner')", AgentCrashed, "TimeoutError: inner"),
        ("async def answer(prompt): raise TimeoutError('inner')", AgentCrashed, "TimeoutError: inner"),
        ("def answer(prompt): return None", EmptyAnswer, "answered nothing"),
        ("def answer(prompt): return ' '", EmptyAnswer, "answered nothing"),
        ("def answer(prompt): return iter(())", EmptyAnswer, "answered nothing"),
        ("def answer(prompt): return 4", Garbled, "returned a int"),
        ("def answer(prompt): return {'a': 1}", Garbled, "set response_field"),
        ("def answer(prompt): yield b'4'", Garbled, "yielded a bytes"),
    ],
)
def test_each_fault_has_its_error(make: Any, code: str, kind: type[CallError], says: str) -> None:
    refusal(kind, make(code), says)


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_document_that_is_no_json_is_a_named_failure(make: Any, worker: str) -> None:
    code = """
        import enum

        class Kind(enum.Enum):
            A = "paris"

        def answer(prompt):
            loop = {}
            loop["loop"] = loop
            return {"a": {"kind": Kind.A, "all": {1}, "bytes": b"\\xff", "loop": loop}[prompt]}
    """
    built = make(code, response_field="a", worker=worker, max_concurrency=1)
    assert [run(built, task(name)).output for name in ("kind", "all")] == ["paris", "[1]"]
    refusal(Garbled, built, "cannot be written as JSON", task("bytes"))
    refusal(Garbled, built, "cannot be written as JSON", task("loop"))


def test_a_typed_error_of_the_agent_keeps_its_type(make: Any) -> None:
    code = "from gepa_atlas.errors import RateLimited\ndef answer(prompt): raise RateLimited('slow', 3.0)"
    refusal(RateLimited, make(code), "slow")


@pytest.mark.parametrize(
    "code", ["import time\ndef answer(p): time.sleep(30)", "import asyncio\nasync def answer(p): await asyncio.sleep(30)"]
)
def test_a_hang_ends_for_the_caller(make: Any, code: str) -> None:
    refusal(CallTimeout, make(code, timeout=0.1), "0.1 seconds")


def test_a_hung_thread_does_not_keep_the_program(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("import time\ndef answer(prompt): time.sleep(300)")
    code = """
        import asyncio, sys
        from gepa_atlas.connectors import AgentSpec, build_agent
        from gepa_atlas.errors import CallTimeout
        from gepa_atlas.types import Question, Task
        spec = AgentSpec(provider="python.callable", params={"callable": "agent.py:answer", "timeout": 0.1})
        built = build_agent(spec, build_model=None, base_dir=sys.argv[1])
        try:
            asyncio.run(built.run(Task(Question("q", "2?"))))
        except CallTimeout:
            print("ended")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


def test_no_more_threads_than_the_endpoint_allows(make: Any) -> None:
    code = """
        import threading
        now, most, lock, both = 0, 0, threading.Lock(), threading.Barrier(2, timeout=20)
        def two_at_once(question, guidance):
            global now, most
            with lock:
                now += 1; most = max(most, now)
            both.wait()
            with lock:
                now -= 1
            return str(most)
    """
    built = make(code, "two_at_once", max_concurrency=2)

    async def eight() -> list[Attempt]:
        return await asyncio.gather(*(built.run(task(f"{i}?")) for i in range(8)))

    assert {a.output for a in asyncio.run(eight())} <= {"1", "2"}
    mine = [t for t in threading.enumerate() if t.name == f"agent {built.endpoint.name.removeprefix('python:')}"]
    assert len(mine) == 2 and all(t.daemon for t in mine)


def test_an_agent_serves_one_event_loop_after_another(make: Any) -> None:
    built = make("def answer(prompt): return prompt")
    assert [run(built).output for _ in range(3)] == [PROMPT] * 3


# -- what is loaded ---------------------------------------------------------------------------------------------------


def test_a_module_by_import_path_and_its_neighbours(tmp_path: Path) -> None:
    package = tmp_path / "my_agent_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("SIGN = '!'")
    (package / "bot.py").write_text("from my_agent_package.helper import SIGN\ndef answer(prompt): return prompt + SIGN")
    spec = AgentSpec(provider="python.callable", params={"callable": "my_agent_package.bot:answer"})
    assert run(build_agent(spec, build_model=no_model, base_dir=tmp_path), task("2?")).output == "2?!"


def test_a_changed_file_is_another_agent(make: Any) -> None:
    one, same, other = (make(code) for code in ("def answer(p): return 'a'", "def answer(p): return 'a'", "def answer(p): return 'b'"))
    assert one.identity != other.identity
    assert one.identity != same.identity, "another file name is another agent"
    assert make("def answer(p): return 'a'", guidance="suffix").identity != one.identity


def test_the_identity_does_not_know_where_the_file_lies(tmp_path: Path) -> None:
    identities = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "bot.py").write_text("def answer(p): return 'a'")
        spec = AgentSpec(provider="python.callable", params={"callable": "bot.py:answer", "timeout": 5 if place == "here" else 9})
        identities.add(build_agent(spec, build_model=no_model, base_dir=tmp_path / place).identity)
    assert len(identities) == 1


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"callable": "bot.py"}, "must read"),
        ({"callable": "nowhere.py:answer"}, "there is no file"),
        ({"callable": "no_such_module_here:answer"}, "No module named"),
        ({"callable": "bot.py:anwser"}, "it has: answer, two, lost"),
        ({"callable": "bot.py:NUMBER"}, "a int, which cannot be called"),
        ({"callable": "broken.py:answer"}, "RuntimeError: at import"),
        ({"callable": "bot.py:two"}, "it also needs a, b"),
        ({"callable": "bot.py:lost"}, "would not reach it"),
        ({"callable": "bot.py:twice"}, "would come twice"),
        ({"callable": "bot.py:nothing"}, "must take some of"),
        ({"callable": "bot.py:plain", "guidance": "field"}, "takes one text"),
        ({"callable": "bot.py:Needy"}, "made without arguments"),
        ({"callable": "bot.py:answer", "guidance": "turns"}, "no chat"),
        ({"callable": "bot.py:answer", "process_response": "json"}, "needs response_field"),
        ({"callable": "bot.py:answer", "time_out": 3}, "did you mean 'timeout'"),
    ],
)
def test_code_that_cannot_be_used_is_one_line(params: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('at import')")
    (tmp_path / "bot.py").write_text(
        "NUMBER = 4\ndef answer(prompt): return prompt\ndef two(a, b): return a\ndef lost(question): return question\n"
        "def twice(prompt, guidance): return prompt\ndef nothing(): return ''\ndef plain(text): return text\n"
        "class Needy:\n    def __init__(self, key): pass\n    def __call__(self, prompt): return prompt\n"
    )
    with pytest.raises(ConfigError, match=says) as caught:
        build_agent(AgentSpec(provider="python.callable", params=params), build_model=no_model, base_dir=tmp_path)
    assert "\n" not in str(caught.value)


# -- agents that do things to their task ------------------------------------------------------------------------------

SELF_CANCEL = (
    "import asyncio\nasync def answer(prompt):\n    asyncio.current_task().cancel()\n    await asyncio.sleep(1)\n    return prompt"
)
STUBBORN = """
import asyncio
import os
import sys
import time
async def answer(prompt):
    for _ in range(12):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            pass
    return prompt
"""


def test_an_agent_that_cancels_its_own_task_has_crashed_and_nothing_else_has(make: Any) -> None:
    built, other = make(SELF_CANCEL), make("async def answer(prompt): return 'fine'")

    async def both() -> list[Any]:
        return await asyncio.gather(built.run(task()), other.run(task()), return_exceptions=True)

    crashed, fine = asyncio.run(both())
    assert type(crashed) is AgentCrashed and "cancelled its own task" in str(crashed)
    assert fine.output == "fine"
    refusal(AgentCrashed, make("import sys\nasync def answer(prompt): sys.exit(3)"), "SystemExit: 3")


def test_an_agent_that_ignores_its_cancellation_keeps_nobody_waiting(make: Any) -> None:
    async def timed() -> float:
        began = time.monotonic()
        with pytest.raises(CallTimeout):
            await make(STUBBORN, timeout=0.2).run(task())
        return time.monotonic() - began

    assert asyncio.run(timed()) < 1.0


# -- worker processes -------------------------------------------------------------------------------------------------

HEAVY = """
import os, time
import colorsys as heavy  # stands for what must not be imported into the process of the search
made = []

def answer(question, guidance):
    if question == "crash":
        os._exit(3)
    if question == "hang":
        time.sleep(60)
    if question == "raise":
        raise KeyError("model")
    made.append(question)
    return f"{question}|{guidance}|{os.getpid()}|{len(made)}"

async def later(prompt):
    return {"text": prompt}

def pieces(prompt):
    yield "a"
    yield "b"
"""


def test_heavy_code_runs_in_worker_processes_that_stay(make: Any) -> None:
    sys.modules.pop("colorsys", None)
    built = make(HEAVY, worker="process", max_concurrency=2)
    first, second = (str(run(built, task(q, "g")).output).split("|") for q in ("a", "b"))
    assert first[:2] == ["a", "g"] and first[2] == second[2] != str(os.getpid()) and [first[3], second[3]] == ["1", "2"]
    assert "colorsys" not in sys.modules
    assert run(make(HEAVY, "later", worker="process", response_field="text"), task("x")).output == "x"
    assert run(make(HEAVY, "pieces", worker="process"), task("x")).output == "ab"
    with pytest.raises(ConfigError, match="it also needs prompt_id"):
        make("def answer(question, guidance, prompt_id): return 1", worker="process")


def test_a_worker_that_crashes_hangs_or_raises_takes_no_other_along(make: Any) -> None:
    built = make(HEAVY, worker="process", max_concurrency=4, timeout=10.0)

    async def four() -> list[Any]:
        asked = ("crash", "raise", "a", "b")
        return await asyncio.gather(*(built.run(task(q)) for q in asked), return_exceptions=True)

    crashed, raised, a, b = asyncio.run(four())
    assert type(crashed) is AgentCrashed and "ended in the middle of a call" in str(crashed)
    assert type(raised) is AgentCrashed and "KeyError: 'model'" in str(raised)
    assert [str(x.output)[0] for x in (a, b)] == ["a", "b"]
    hanging = make(HEAVY, worker="process", max_concurrency=1, timeout=4.0)
    began = time.monotonic()
    refusal_of(hanging, "hang")
    assert run(hanging, task("after")).output and time.monotonic() - began < 20


def refusal_of(built: Agent, question: str) -> None:
    with pytest.raises(CallTimeout):
        run(built, task(question))
