"""The command line: what a user types, what comes back, and that whatever goes wrong is one line and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.cli import run

ROOT = Path(__file__).parent.parent
TOY = ROOT / "configs" / "examples" / "toyworld.yaml"
SHORT = ["--set", "max_metric_calls=80", "--set", "data.toyworld.examples=40", "--quiet"]

Atlas = Callable[..., tuple[int, str, str]]


@pytest.fixture
def atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Atlas]:
    """Runs the command line in this process, in an empty current directory: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    yield call
    os.environ.clear()
    os.environ.update(before)


def refusal(atlas: Atlas, *arguments: str | Path, code: int = 2) -> str:
    """The one line on stderr of a command that must fail with `code`."""
    found, _, err = atlas(*arguments)
    assert err.count("\n") == 1 and err.startswith("error: "), err
    assert found == code, err
    return err


def process(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from gepa_atlas.cli import main; main()", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# -- help and usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["optimize"], ["check"], ["report"], ["runs"], ["runs", "show"], ["version"]])
def test_every_command_explains_itself(atlas: Atlas, command: list[str]) -> None:
    code, out, err = atlas(*command, "--help")
    assert code == 0 and out.startswith("Usage: gepa-atlas") and not err


def test_help_shows_examples_exit_codes_and_environment(atlas: Atlas) -> None:
    assert "Exit codes" in atlas("--help")[1]
    out = atlas("optimize", "--help")[1]
    assert "Examples:" in out and "STUDENT_MODEL" in out


def test_nothing_typed_is_help(atlas: Atlas) -> None:
    assert atlas()[1].startswith("Usage: gepa-atlas")


def test_version(atlas: Atlas) -> None:
    from gepa_atlas import __version__

    assert atlas("version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optimise"], "Did you mean 'optimize'?"),
        (["optimize"], "CONFIG"),
        (["optimize", "a", "b"], "unexpected extra argument"),
        (["optimize", "a", "--max-usd", "lots"], "--max-usd"),
        (["optimize", "a", "--set"], "--set"),
        (["runs"], "Missing command"),
        (["optimize", "--colour"], "No such option"),
    ],
)
def test_a_wrong_command_line_is_one_line(atlas: Atlas, arguments: list[str], says: str) -> None:
    assert says.lower() in refusal(atlas, *arguments).lower()


# -- a run from start to finish ---------------------------------------------------------------------------------------


def test_a_run_can_be_made_looked_at_and_made_again_for_nothing(atlas: Atlas, tmp_path: Path) -> None:
    code, out, err = atlas("optimize", TOY, *SHORT)
    assert (code, err) == (0, "")
    directory = tmp_path / "runs" / "toyworld"
    assert f"Prompts: {directory}/optimized_prompts.json" in out
    result = json.loads((directory / "optimized_prompts.json").read_text())
    keys = ("best_candidate", "best_score", "initial_score", "improvement", "improvement_percentage", "pareto_frontier")
    assert all(result[key] is not None for key in keys)
    assert (directory / "traces.jsonl").read_text().count("\n") > 10

    digest = atlas("runs", "digest", "toyworld")[1].strip()
    calls = json.loads(atlas("runs", "calls", "toyworld", "--json")[1])
    assert calls["rollouts"] <= 80
    assert result["digest"] == digest
    assert "finished" in atlas("runs", "list")[1]
    assert json.loads(atlas("runs", "list", "--json")[1])[0]["rollouts"] == calls["rollouts"]
    assert digest in atlas("runs", "show", directory)[1]
    assert json.loads(atlas("runs", "show", directory, "--json")[1])["result"] == result
    assert f"rollouts {calls['rollouts']}" in atlas("runs", "calls", directory)[1]

    again = atlas("optimize", TOY, *SHORT)
    assert again[:2] == (0, out)
    assert json.loads(atlas("runs", "calls", "toyworld", "--json")[1]) == calls

    (directory / "optimized_prompts.json").unlink()
    assert atlas("report", "toyworld")[0] == 0
    assert json.loads((directory / "optimized_prompts.json").read_text()) == result


def test_the_budget_is_never_passed(atlas: Atlas) -> None:
    for limit in (1, 2, 3, 5, 8, 13, 21, 34, 55):
        name = f"runs/n{limit}"
        code, _, err = atlas("optimize", TOY, "--max-metric-calls", str(limit), "--run-dir", name, "--quiet")
        assert code == 0, err
        assert json.loads(atlas("runs", "calls", name, "--json")[1])["rollouts"] <= limit


def test_speed_and_place_do_not_change_what_is_found(atlas: Atlas) -> None:
    digests = set()
    for concurrency, latency in ((1, 0), (4, 0.001), (32, 0.002)):
        name = f"elsewhere/{concurrency}"
        sets = ["--set", f"concurrency={concurrency}", "--set", f"agents.target.params.latency={latency}"]
        assert atlas("optimize", TOY, *SHORT, *sets, "--run-dir", name)[0] == 0
        digests.add(atlas("runs", "digest", name)[1])
    assert len(digests) == 1


def test_copies_go_where_the_configuration_says(atlas: Atlas, tmp_path: Path) -> None:
    sets = ["--set", "output=out/best.json", "--set", "trace_storage=out/t.jsonl"]
    assert atlas("optimize", TOY, *SHORT, *sets)[0] == 0
    for copy, original in (("best.json", "optimized_prompts.json"), ("t.jsonl", "traces.jsonl")):
        assert (tmp_path / "out" / copy).read_bytes() == (tmp_path / "runs" / "toyworld" / original).read_bytes()


def test_events_are_json_lines(atlas: Atlas) -> None:
    out = atlas("optimize", TOY, *SHORT[:-1], "--json")[1]
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events[0] == "start" and events[-1] == "finish" and "decision" in events


def test_check_tries_the_student_and_keeps_the_answers_beside_the_run(atlas: Atlas, tmp_path: Path) -> None:
    code, out, _ = atlas("check", TOY)
    assert code == 0
    assert "36 train, 36 val, 48 test" in out and "without guidance" in out and "reward" in out
    assert json.loads(atlas("check", TOY, "--json")[1])["ok"] is True
    assert [p.relative_to(tmp_path).parts[:3] for p in tmp_path.rglob("run.db")] == [("runs", "toyworld", "check")]


def test_check_says_why_an_agent_is_unusable(atlas: Atlas, tmp_path: Path) -> None:
    path = config(tmp_path, agents=student("http.api", endpoint="http://127.0.0.1:9/answer"))
    code, out, err = atlas("check", path)
    assert code == 2 and "no answer" in out
    assert "unreachable" in err and err.count("\n") == 1
    shown = json.loads(atlas("check", path, "--json")[1])
    assert shown["ok"] is False and shown["lesson"]["baseline"]["error"]["kind"] == "unreachable"


def test_limits_by_flag_end_the_search_and_leave_a_result(atlas: Atlas) -> None:
    for flags, word in (
        (("--max-tokens", "20000"), "tokens"),
        (("--max-usd", "0.02"), "dollars"),
        (("--max-minutes", "0.0001"), "deadline"),
    ):
        name = f"runs/{word}"
        code, out, err = atlas("optimize", TOY, *flags, "--run-dir", name, "--quiet")
        assert code == 0 and f"Stopped: {word}" in out, err
        charged = json.loads(atlas("runs", "calls", name, "--json")[1])["usage"]["student"]
        assert charged["input_tokens"] + charged["output_tokens"] <= 20000 or word != "tokens"
        assert charged["dollars"] <= 0.02 or word != "dollars"


def test_a_changed_resume_is_refused_by_the_name_of_the_key(atlas: Atlas) -> None:
    assert atlas("optimize", TOY, *SHORT)[0] == 0
    for change, name in (("seed=4", "seed"), ("data.toyworld.examples=50", "data"), ("rim.judges.0=contains", "rim")):
        assert f"other values of: {name}" in refusal(atlas, "optimize", TOY, *SHORT, "--set", change)


# -- interruptions ----------------------------------------------------------------------------------------------------

LONGER = [TOY, "--set", "max_metric_calls=300", "--quiet"]
SLOW = [*LONGER[:-1], "--set", "agents.target.params.latency=0.1", "--set", "concurrency=2"]


def test_control_c_saves_and_says_how_to_go_on(atlas: Atlas, tmp_path: Path) -> None:
    running = process("optimize", *SLOW, "--run-dir", "runs/slow", cwd=tmp_path)
    assert running.stdout is not None
    for line in iter(running.stdout.readline, ""):
        if line.lstrip().startswith("[") and "#2" in line:
            break
    busy = process("optimize", *SLOW, "--run-dir", "runs/slow", cwd=tmp_path)
    _, err = busy.communicate(timeout=60)
    assert busy.returncode == 3 and str(running.pid) in err and err.count("\n") == 1, err
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the same command goes on from here" in err and "Traceback" not in err
    assert "no result yet" in atlas("runs", "show", "slow")[1]
    assert "not finished" in refusal(atlas, "report", "slow")

    charged = json.loads(atlas("runs", "calls", "slow", "--json")[1])["rollouts"]
    assert charged >= 4
    assert atlas("optimize", *LONGER, "--run-dir", "runs/slow")[0] == 0
    assert atlas("optimize", *LONGER, "--run-dir", "runs/calm")[0] == 0
    assert atlas("runs", "digest", "slow") == atlas("runs", "digest", "calm")
    assert (
        atlas("runs", "calls", "slow", "--json")[1].split('"unsettled"')[0]
        == atlas("runs", "calls", "calm", "--json")[1].split('"unsettled"')[0]
    )


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    running = process("optimize", "--help", cwd=tmp_path)
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    err = running.stderr.read()
    running.stderr.close()
    assert running.wait(60) in (0, 1) and not err


# -- bad input --------------------------------------------------------------------------------------------------------


def config(directory: Path, **changes: Any) -> Path:
    """The toy configuration with top-level keys replaced (None removes one)."""
    tree = yaml.safe_load(TOY.read_text()) | changes
    path = directory / "bad.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))
    return path


def student(provider: str, **params: Any) -> dict[str, Any]:
    return {"student": {"provider": provider, "params": params}}


GOLDLESS = {"path": "goldless.jsonl"}

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"max_metric_cals": 3}, "did you mean 'max_metric_calls'?"),
    "unknown provider of the agent": ({"agents": student("openai.chatt")}, "unknown provider 'openai.chatt'"),
    "unknown provider of a model": ({"agents": student("chat", model="lokal")}, "did you mean 'local'?"),
    "unknown param": ({"agents": student("toyworld", wrold={})}, "did you mean 'world'?"),
    "unset variable": ({"agents": student("chat", model="${NO_SUCH_MODEL}")}, "NO_SUCH_MODEL, which is not set"),
    "missing data": ({"data": {"path": "none.jsonl"}}, "no such data file"),
    "empty data": ({"data": {"path": "empty.jsonl"}}, "no examples in it"),
    "gold answers missing": ({"data": GOLDLESS}, "no gold answer, which judge 'exact' needs"),
    "unknown judge": ({"rim": {"judges": ["exakt"]}}, "did you mean 'exact'?"),
    "unknown operator": ({"operators": ["edits"], "operator_options": None}, "did you mean 'edit'?"),
    "operator without a model": ({"operators": ["reflect"], "operator_options": None}, "needs a reflection model"),
    "unknown component": ({"seed_prompts": {"guidence": "x"}}, "seed_prompts.guidence: protocol 'playbook' has no such component"),
    "lost placeholder": (
        {
            "agents": student("toyworld") | {"teacher": "local"},
            "protocol": "lesson",
            "seed_prompts": {"teacher_adaptive_template": "Teach {question}."},
        },
        "lost its required placeholder {attempt}",
    ),
    "lesson without a teacher": ({"protocol": "lesson", "seed_prompts": None}, "needs a teacher model"),
    "unknown gain": ({"gain": "deltas"}, "did you mean 'delta'?"),
    "unknown retry key": ({"retry": {"attempt": 3}}, "did you mean 'attempts'?"),
    "output below a file": ({"output": "empty.jsonl/x.json"}, "cannot be written"),
    "output is a directory": ({"output": "."}, "this is a directory"),
    "run directory below a file": ({"run_dir": "empty.jsonl/run"}, "cannot be written"),
    "agent that does not exist": ({"agents": student("cli.command", argv=["./no-such-agent"])}, "no-such-agent"),
    "agent that never answers": ({"agents": student("python.callable", callable="agent.py:never", timeout=0.2)}, "gave no usable answer"),
    "agent that answers nonsense": ({"agents": student("python.callable", callable="agent.py:nonsense")}, "gave no usable answer"),
    "agent that crashes": ({"agents": student("python.callable", callable="agent.py:crashes")}, "gave no usable answer"),
    "output over the run's ledger": ({"output": "runs/bad/run.db"}, "a file that the run keeps"),
    "output over the configuration": ({"output": "bad.yaml"}, "is no copy of an earlier run"),
    "output over the traces": ({"output": "o.json", "trace_storage": "o.json"}, "a file that output writes"),
    "output is a pipe": ({"output": "pipe"}, "not a regular file"),
    "run directory with a NUL": ({"run_dir": "a\0b"}, "a NUL character"),
    "agent that ends the program on import": ({"agents": student("python.callable", callable="leaves.py:f")}, "SystemExit"),
    "data function that ends the program": ({"data": {"function": "leaves.py:f"}}, "SystemExit"),
    "judge that ends the program on import": ({"rim": {"judges": [{"type": "python", "function": "leaves.py:f"}]}}, "SystemExit"),
    "schema that points outside": (
        {"rim": {"judges": [{"type": "json_schema", "json_schema": {"$ref": "http://127.0.0.1:9/x"}}]}}, "leads to nothing",
    ),
    "port that there is not": ({"agents": student("http.api", endpoint="http://127.0.0.1:99999/")}, "Port out of range"),
    "address with a line break": ({"agents": student("http.api", endpoint="http://127.0.0.1/a\nb")}, "no control characters"),
    "length of a body as a header": (
        {"agents": student("http.api", endpoint="http://127.0.0.1:9/", headers={"Content-Length": "5"})}, "follows from each body",
    ),
    "a prompt longer than the limit": ({"seed_prompts": {"guidance": "x" * 9000}}, "raise max_chars in protocol.params"),
    "agent that stops an iteration": ({"agents": student("python.callable", callable="agent.py:stops")}, "StopIteration"),
    "agent that says nothing": ({"agents": student("python.callable", callable="agent.py:silent")}, "gave no usable answer"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_exit_code_2(atlas: Atlas, tmp_path: Path, what: str) -> None:
    changes, says = BAD[what]
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "goldless.jsonl").write_text("".join(json.dumps({"question": f"q{n}"}) + "\n" for n in range(40)))
    (tmp_path / "agent.py").write_text(
        "import time\n"
        "def never(prompt):\n    time.sleep(3)\n"
        "def nonsense(prompt):\n    return object()\n"
        "def crashes(prompt):\n    raise ValueError('a {brace}\\nand a line')\n"
        "def silent(prompt):\n    return ''\n"
        "def stops(prompt):\n    return next(iter(()))\n"
    )
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    os.mkfifo(tmp_path / "pipe")
    assert says in refusal(atlas, "optimize", config(tmp_path, **changes), *SHORT[:2], "--quiet")


def test_a_judge_that_never_scores_is_no_result(atlas: Atlas, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "import sys, time\ndef leaves(output, example): sys.exit(1)\ndef hangs(output, example): time.sleep(9)\n"
    )
    for name, reason in (("leaves", "SystemExit: 1"), ("hangs", "did not return within 0.01 s")):
        judge = {"type": "python", "function": f"judge.py:{name}", "timeout": 0.01 if name == "hangs" else 9}
        path = config(tmp_path, rim={"judges": [judge]}, run_dir=name, max_metric_calls=8)
        said = refusal(atlas, "optimize", path, "--quiet", code=75)
        assert "lessons could be scored" in said and reason in said
        if name == "leaves":
            assert "correct rim.judges" in atlas("check", path)[2]


def test_a_limit_reached_at_once_is_a_result(atlas: Atlas) -> None:
    assert atlas("optimize", TOY, *SHORT, "--max-minutes", "1e-9")[0] == 0
    assert atlas("optimize", TOY, *SHORT, "--max-minutes", "1e-9")[0] == 0


def test_a_run_directory_may_be_called_anything(atlas: Atlas, tmp_path: Path) -> None:
    assert atlas("optimize", TOY, *SHORT, "--max-metric-calls", "4", "--run-dir", "🙂 a?b#c%20/{x}")[0] == 0
    assert (tmp_path / "🙂 a?b#c%20" / "{x}" / "optimized_prompts.json").is_file()
    (tmp_path / "🙂 a?b#c%20" / "{x}" / "config.json").write_text("[]")
    assert "does not name" in refusal(atlas, "report", "🙂 a?b#c%20/{x}")


def test_copies_are_written_again(atlas: Atlas) -> None:
    copies = ["--set", "output=o.json", "--set", "trace_storage=t.jsonl", "--max-metric-calls", "4"]
    assert [atlas("optimize", TOY, *SHORT, *copies)[0] for _ in range(2)] == [0, 0]
    assert atlas("report", "toyworld")[0] == 0


def test_a_run_that_is_not_there(atlas: Atlas, tmp_path: Path) -> None:
    assert "no such run directory" in refusal(atlas, "runs", "show", "none")
    (tmp_path / "runs" / "hollow").mkdir(parents=True)
    assert "holds no run" in refusal(atlas, "runs", "digest", "hollow")
    assert "no such directory" in refusal(atlas, "runs", "list", "none")


def test_a_damaged_run_says_so(atlas: Atlas, tmp_path: Path) -> None:
    assert atlas("optimize", TOY, *SHORT)[0] == 0
    (tmp_path / "runs" / "toyworld" / "run.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    refusal(atlas, "runs", "digest", "toyworld", code=4)
    assert "damaged" in atlas("runs", "list")[1]


def test_secrets_in_the_environment_do_not_reach_the_run(atlas: Atlas, tmp_path: Path) -> None:
    os.environ["MY_API_KEY"] = "swordfish-swordfish"
    path = config(tmp_path, seed_prompts={"guidance": "password ${MY_API_KEY}"}, max_metric_calls=30)
    assert atlas("optimize", path, "--quiet")[0] == 0
    files = [p for p in (tmp_path / "runs" / "bad").iterdir() if p.is_file()]
    assert len(files) >= 4
    assert not [p.name for p in files if b"swordfish" in p.read_bytes()]


def test_ctrl_c_while_the_command_is_being_imported_is_one_line(tmp_path: Path) -> None:
    code = (
        "import importlib.abc, sys\n"
        "class Press(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'gepa_atlas.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Press())\n"
        "from gepa_atlas.start import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
