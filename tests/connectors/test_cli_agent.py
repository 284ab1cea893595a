"""The cli.command provider against real processes: bytes in, bytes out, nothing executed, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import AgentCrashed, BadRequest, CallError, CallTimeout, ConfigError, EmptyAnswer, Garbled, TooLarge
from gepa_atlas.ports import Agent, Previews
from gepa_atlas.types import Attempt, Task
from tests.connectors.faults import HOSTILE, no_model, task

ECHO_ARGUMENT = "import sys; sys.stdout.buffer.write(sys.argv[-1].encode('utf-8', 'surrogateescape'))"
ECHO_FILE = "import sys; sys.stdout.buffer.write(open(sys.argv[-1], 'rb').read())"


def agent(*argv: str, base_dir: Path | None = None, **params: Any) -> Agent:
    spec = AgentSpec(provider="cli.command", params={"argv": list(argv), "timeout": 20.0, **params})
    return build_agent(spec, build_model=no_model, base_dir=base_dir)


def python(code: str, *more: str, **params: Any) -> Agent:
    return agent("{python}", "-c", code, *more, **params)


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task()))


def refusal(kind: type[CallError], built: Agent, says: str = ".", asked: Task | None = None) -> None:
    with pytest.raises(CallError, match=says) as caught:
        run(built, asked)
    assert type(caught.value) is kind, caught.value
    assert "\n" not in str(caught.value)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid_file: Path) -> bool:
    """Whether the process that wrote its id there ends within two seconds."""
    pid = int(pid_file.read_text())
    until = time.monotonic() + 2
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


# -- bytes in, bytes out ----------------------------------------------------------------------------------------------


def test_the_prompt_comes_on_stdin() -> None:
    attempt = run(agent("cat"), task("2 + 2?", "Be brief."))
    assert attempt.output == "Be brief.\n\n2 + 2?"
    assert (attempt.usage.calls, attempt.usage.tokens) == (1, None)


@pytest.mark.parametrize("name", sorted(HOSTILE))
@pytest.mark.parametrize("way", ["stdin", "argument", "file"])
def test_every_byte_arrives_and_nothing_is_run(way: str, name: str, tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    text = HOSTILE[name].replace("{marker}", str(marker))
    argv = {
        "stdin": ["cat"],
        "argument": ["{python}", "-c", ECHO_ARGUMENT, "--", "{prompt}"],
        "file": ["{python}", "-c", ECHO_FILE, "{prompt_file}"],
    }[way]
    if way == "argument" and len(text.encode()) > 100_000:
        text = text[:50_000]
    assert run(agent(*argv, strip=False), task(text)).output == text
    assert not marker.exists()


def test_the_documented_attack_is_text(tmp_path: Path) -> None:
    attack = f"\"; touch {tmp_path}/owned; $(id) '{{x}}'"
    for built in (agent("cat"), agent("echo", "--", "{prompt}"), agent("sh", "-c", 'printf %s "$1"', "_", "{prompt}")):
        assert attack in str(run(built, task(attack)).output)
    assert list(tmp_path.iterdir()) == []


def test_json_in_and_json_out() -> None:
    code = "import json, sys; d = json.load(sys.stdin); print(json.dumps({'out': [d]}))"
    built = python(code, stdin="json", guidance="field", response_format="json", response_field="out.0.guidance")
    text = HOSTILE["braces"] + HOSTILE["emoji"]
    assert run(built, task("q", text)).output == text
    whole = python(code, stdin="json", guidance="field", response_format="json", response_field="out.0")
    shown = run(whole, task("q?", "g", context="c", demos=(("a", "b"),), heat=2)).output
    assert shown == (
        '{"prompt": "c\\n\\nq?", "question": "q?", "context": "c", "guidance": "g", '
        '"demos": [{"question": "a", "answer": "b"}], "settings": {"heat": 2}}'
    )


def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert run(agent("echo", "4"), task("x" * 3_000_000)).output == "4"


def test_white_space_stays_where_it_is_wanted() -> None:
    assert run(agent("echo", "4")).output == "4"
    assert run(agent("echo", "4", strip=False)).output == "4\n"


def test_much_text_both_ways_does_not_deadlock() -> None:
    text = "abc äöü 🙂\n" * 60_000
    code = "import sys\nfor line in sys.stdin.buffer:\n    sys.stdout.buffer.write(line); sys.stderr.buffer.write(line)"
    assert run(python(code, strip=False), task(text)).output == text


# -- what fails -------------------------------------------------------------------------------------------------------


def test_a_crash_shows_the_last_line_of_stderr_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal(AgentCrashed, python("import sys; sys.exit('first\\nno model loaded')"), "exit code 1: no model loaded")
    refusal(AgentCrashed, python("raise ValueError('sk-abcdefghijklmnopqrstuv')"), r"ValueError: \[redacted\]")
    refusal(AgentCrashed, agent("false"), "without a word")


def test_a_crash_in_the_middle_of_an_answer_is_no_answer() -> None:
    code = "import os, sys; print('The answer is', flush=True); os.kill(os.getpid(), 9)"
    refusal(AgentCrashed, python(code), "signal 9")


def test_empty_and_garbled_answers() -> None:
    refusal(EmptyAnswer, agent("true"))
    refusal(EmptyAnswer, agent("echo", "  "))
    refusal(EmptyAnswer, agent("true", response_format="json"))
    refusal(EmptyAnswer, agent("echo", '{"response": null}', response_format="json"))
    refusal(Garbled, agent("printf", r"caf\351"), "UTF-8, from byte 3")
    refusal(Garbled, agent("echo", '{"response": "4"', response_format="json"), "not JSON")
    refusal(Garbled, agent("echo", '{"answer": "4"}', response_format="json"), "'answer'")


def test_fifty_megabytes_are_not_read(tmp_path: Path) -> None:
    code = "import sys\nfor _ in range(50): sys.stdout.write('x' * 1_000_000)\nopen(sys.argv[1], 'w')"
    refusal(TooLarge, python(code, str(tmp_path / "done")), "max_bytes")
    assert not (tmp_path / "done").exists()
    assert run(python("import sys; sys.stderr.write('x' * 50_000_000); print(4)")).output == "4"


def test_what_no_argument_can_hold() -> None:
    built = agent("echo", "--", "{prompt}")
    refusal(BadRequest, built, "NUL", task("a\0b"))
    refusal(BadRequest, built, "too long", task("x" * 200_000))
    refusal(BadRequest, built, "surrogate", task("\ud800"))
    refusal(BadRequest, agent("echo", "{prompt}"), "begins with '-'", task("--version"))
    assert run(agent("printf", "%s", "--", "{prompt}"), task("--version")).output == "----version"
    assert run(agent("cat"), task("a\0b")).output == "a\0b"


def test_a_setting_needs_a_place() -> None:
    refusal(BadRequest, agent("cat"), "'heat'", task(heat=1))


# -- nothing is left behind -------------------------------------------------------------------------------------------

FAMILY = """
import os, subprocess, sys, time
sleeper = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
for name, session in (("group", False), ("session", True)):
    subprocess.Popen([sys.executable, "-c", sleeper, sys.argv[1] + "/" + name], start_new_session=session)
while not all(os.path.exists(p) and open(p).read() for p in (sys.argv[1] + "/group", sys.argv[1] + "/session")):
    time.sleep(0.01)
open(sys.argv[1] + "/ready", "w").close()
"""


@pytest.mark.parametrize("end", ["hang", "cancel", "flood", "crash", "done"])
def test_grandchildren_end_with_the_call_however_it_ends(end: str, tmp_path: Path) -> None:
    last = {"flood": "while True: print('x' * 10_000)", "crash": "sys.exit(3)", "done": "print(4)"}.get(end, "time.sleep(60)")
    built = python(FAMILY + last, str(tmp_path), timeout=3.0 if end == "hang" else 20.0)

    async def call() -> Attempt | BaseException:
        running = asyncio.create_task(built.run(task()))
        while end == "cancel" and not (tmp_path / "ready").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if end == "cancel":
            running.cancel()
        return (await asyncio.gather(running, return_exceptions=True))[0]

    result = asyncio.run(call())
    expected = {"hang": CallTimeout, "cancel": asyncio.CancelledError, "flood": TooLarge, "crash": AgentCrashed, "done": Attempt}
    assert type(result) is expected[end], result
    assert gone(tmp_path / "group") and gone(tmp_path / "session")


def test_a_child_that_keeps_the_pipe_does_not_keep_the_answer() -> None:
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print(4)"
    started = time.monotonic()
    assert run(python(code)).output == "4"
    assert time.monotonic() - started < 15


def test_the_environment_is_short_and_the_home_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hidden")
    monkeypatch.setenv("WANTED", "yes")
    output = run(agent("env", env=["WANTED", "NOT_SET"])).output
    assert output is not None
    shown = dict(line.split("=", 1) for line in output.splitlines())
    assert set(shown) == {"PATH", "HOME", "LANG", "WANTED"}
    assert shown["HOME"] != os.environ.get("HOME") and not Path(shown["HOME"]).exists()


def test_limits_on_memory_and_processor_time() -> None:
    refusal(AgentCrashed, python("x = bytearray(400_000_000); print(len(x))", memory_mb=200), "MemoryError")
    refusal(AgentCrashed, python("while True: pass", cpu_seconds=1), "signal")
    assert run(python("print(4)", memory_mb=500, cpu_seconds=5)).output == "4"


# -- what is refused at load ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"argv": "my-agent --fast"}, r'\["my-agent", "--fast"\]'),
        ({"argv": []}, "argv"),
        ({"argv": ["echo", "say {prompt}"]}, "an item of its own"),
        ({"argv": ["sh", "-c", "{prompt}"]}, "run as code"),
        ({"argv": ["bash", "-lc", "{prompt}"]}, "bash would run the prompt as code"),
        ({"argv": ["sh", "-c", "-x", "{prompt}"]}, "sh would run the prompt as code"),
        ({"argv": ["env", "A=1", "/bin/bash", "-ec", "--", "{prompt}"]}, "bash would run the prompt as code"),
        ({"argv": ["{python}", "-Ic", "{prompt}"]}, "as code"),
        ({"argv": ["ssh", "localhost", "my-agent", "{prompt}"]}, "ssh would run the prompt as code"),
        ({"argv": ["{prompt}"]}, "cannot be the prompt"),
        ({"argv": ["no-such-program-here"]}, "no program 'no-such-program-here'"),
        ({"argv": ["./agent.sh"]}, "no program './agent.sh'"),
        ({"argv": ["cat"], "cwd": "nowhere"}, "not a directory"),
        ({"argv": ["cat"], "guidance": "system"}, "no chat"),
        ({"argv": ["cat"], "guidance": "field"}, "stdin: json"),
        ({"argv": ["cat", "{prompt}"], "stdin": "json"}, "already carries"),
        ({"argv": ["cat"], "shell": True}, "unknown key"),
    ],
)
def test_a_command_that_cannot_work_is_refused(params: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build_agent(AgentSpec(provider="cli.command", params=params), build_model=no_model, base_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "argv",
    [["{python}", "-c", ECHO_ARGUMENT, "{prompt}"], ["sh", "-c", 'printf %s "$1"', "agent", "{prompt}"], ["printf", "%s", "{prompt}"]],
)
def test_the_prompt_may_follow_code_as_an_argument_of_it(argv: list[str]) -> None:
    assert run(agent(*argv), task("$(id) `id`")).output == "$(id) `id`"


def test_check_is_shown_what_would_be_run() -> None:
    asked = task("2 + 2?", "Be brief.")
    shown = [
        built.preview(asked)
        for built in (agent("cat", env=["A_TOKEN"]), agent("echo", "--", "{prompt}"), agent("cat", "{prompt_file}"))
        if isinstance(built, Previews)
    ]
    prompt = "Be brief.\n\n2 + 2?"
    assert shown[0]["stdin"] == prompt and shown[0]["env"] == ["PATH", "LANG", "A_TOKEN"]
    assert shown[1]["argv"][1:] == ["--", prompt] and shown[1]["stdin"] == ""
    assert shown[2]["argv"][1:] == ["HOME/prompt.txt"] and shown[2]["prompt_file"] == prompt


def test_a_changed_program_is_another_agent(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text("print(4)")
    first = agent("{python}", "agent.py", base_dir=tmp_path)
    assert run(first).output == "4"
    assert agent("{python}", "agent.py", base_dir=tmp_path, timeout=1.0).identity == first.identity
    script.write_text("print(5)")
    assert agent("{python}", "agent.py", base_dir=tmp_path).identity != first.identity
    assert agent("{python}", "agent.py", "-v", base_dir=tmp_path).identity != first.identity


def test_calls_run_side_by_side(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nopen(f'{sys.argv[1]}/{os.getpid()}', 'w').close()\n"
        "while len(os.listdir(sys.argv[1])) < 4: time.sleep(0.01)\nprint(4)"
    )

    async def four() -> list[Attempt]:
        built = python(code, str(tmp_path))
        return await asyncio.gather(*(built.run(task(f"{i}?")) for i in range(4)))

    assert [a.output for a in asyncio.run(four())] == ["4"] * 4
