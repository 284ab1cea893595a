"""`gepa-atlas check`: each row from a cause that is really there, what it spends and what it says the run will take."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.check.rows import keys
from gepa_atlas.cli import run
from gepa_atlas.cli.check import _placement

Check = Callable[..., tuple[int, str, str]]
AGENT = """
import itertools
calls = itertools.count()
def echo(question, guidance):
    number = question.split()[2]
    if "answer to this question" in guidance:
        return guidance.split(": ")[1].split("\\n")[0]
    return number if "double" not in guidance else str(2 * int(number))
def right(question, guidance):
    return str(2 * int(question.split()[2]))
def deaf(question, guidance):
    return "no"
def moody(question, guidance):
    return str(2 * int(question.split()[2])) if guidance and next(calls) % 2 else "no"
def fails(question, guidance):
    raise RuntimeError("no battery")
def half(question, guidance):
    if guidance and next(calls):
        raise RuntimeError("only once")
    return "no"
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Check]:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    (tmp_path / "agent.py").write_text(AGENT)
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n), "split": ("train", "val", "test")[n % 3]} for n in range(10, 100)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(function: str = "echo", *flags: str, **changes: Any) -> tuple[int, str, str]:
        tree: dict[str, Any] = {
            "agents": {"student": {"provider": "python.callable", "params": {"callable": f"agent.py:{function}", "guidance": "field"}}},
            "data": {"path": "d.jsonl"},
            "rim": {"judges": ["exact"]},
        }
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree | changes))
        capfd.readouterr()
        code = run(["check", "c.yaml", *flags])
        out, err = capfd.readouterr()
        assert "Traceback" not in err and err.count("\n") <= 1
        return code, out, err

    yield call
    os.environ.clear()
    os.environ.update(before)


def rows(out: str) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in json.loads(out)["rows"]}


def test_all_is_well(check: Check, tmp_path: Path) -> None:
    code, out, err = check()
    assert (code, err) == (0, "")
    assert "makes up to 14 runs of the agent, and judges 22 answers; --sample 1 makes one lesson" in out
    assert "red " not in out and "30 train, 30 val, 30 test" in out
    assert "they tell right from wrong in 4 of 4" in out and "1.00 on 2 when the agent is told the answer" in out
    assert "calls    up to 150 of the agent" in out and "dollars  unknown" in out
    assert "calls made: 14 student; unknown tokens, no known price" in out
    again = check()[1]
    assert "calls made: none" in again and "14 answers were known from an earlier check" in again
    assert "calls made: 14 student" in check("echo", "--fresh")[1]
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "c"] and not (tmp_path / "runs" / "c" / "run.db").exists()


def test_for_machines(check: Check) -> None:
    code, out, _ = check("echo", "--json")
    page = json.loads(out)
    assert code == 0 and page["ok"] is True
    assert {row["state"] for row in page["rows"]} == {"green"}
    assert page["plan"] == {"runs": 14, "lessons": 8, "judgments": 22, "reflection": 0}
    assert page["estimate"]["calls"] == {"student": 150} and page["estimate"]["dollars"] is None
    assert len(page["requests"]) == 2 and page["lesson"]["delta"] == 0.0


def test_nothing_is_called_unless_asked(check: Check, tmp_path: Path) -> None:
    code, out, _ = check("fails", "--sample", "0")
    assert code == 0 and "no call was made" in out and "request (first)" in out
    assert not (tmp_path / "runs").exists()
    out = check("echo", "--sample", "1")[1]
    assert "up to 2 runs of the agent, and judges 2 answers" in out and "calls made: 2 student" in out and "headroom" not in out


def test_an_agent_that_fails(check: Check) -> None:
    code, out, err = check("fails")
    assert code == 2 and "red     lesson" in out and "no battery" in err and "mend the agent, or correct agents.student" in err
    found = json.loads(check("fails", "--json")[1])
    assert found["ok"] is False and "estimate" not in found


def test_lessons_that_fail_later(check: Check) -> None:
    found = rows(check("half", "--json", "--sample", "12")[1])
    assert found["failures"]["state"] == "red" and "23 of 24 lessons have no reward, last: agent_crashed" in found["failures"]["said"]


def test_no_room_for_a_better_prompt(check: Check, tmp_path: Path) -> None:
    few = rows(check("right", "--json")[1])["headroom"]
    assert few["state"] == "yellow" and "4 examples say: at least 51% of the time" in few["said"]
    data = {"path": "d.jsonl", "columns": {"split": "nothing"}, "split": {"train": 0.8, "val": 0.1, "test": 0.1}}
    (tmp_path / "d.jsonl").write_text((tmp_path / "d.jsonl").read_text().replace('"split"', '"was"').replace("}", ', "nothing": ""}'))
    code, out, _ = check("right", "--json", "--sample", "60", data=data)
    many = rows(out)["headroom"]
    assert code == 2 and many["state"] == "red" and "prompts cannot help: the seed prompt is right everywhere" in many["said"]


def test_an_agent_that_does_not_listen(check: Check) -> None:
    found = rows(check("deaf", "--json")[1])["headroom"]
    assert found["state"] == "yellow" and "word for word what it says without guidance" in found["said"]


def test_noise_is_seen(check: Check) -> None:
    found = rows(check("moody", "--json", "--sample", "8")[1])["noise"]
    assert "taught twice got another reward: about" in found["said"]


def test_judges_that_cannot_tell(check: Check) -> None:
    code, out, _ = check("echo", "--json", rim={"judges": [{"type": "regex", "pattern": "[0-9]"}]})
    found = rows(out)["judges"]
    assert found["state"] == "red" and "right from wrong in 0 of 4" in found["said"] and code == 2
    two = rows(check("echo", "--json", rim={"judges": ["exact", {"type": "regex", "pattern": "[0-9]"}]})[1])["agreement"]
    assert two["state"] == "yellow" and "the judges agree in" in two["said"]


def test_guidance_that_is_not_in_the_request() -> None:
    assert _placement([{"body": 1}, {"body": 1}])[0].state == "red"
    assert _placement([{"body": 1}, {"body": 2}])[0].state == "green"
    assert _placement([{"body": 1}]) == []


def test_splits_and_budget_that_are_too_small(check: Check) -> None:
    found = rows(check("echo", "--json", "--sample", "0", max_metric_calls=20)[1])
    assert found["budget"]["state"] == "yellow"
    found = rows(check("echo", "--json", "--sample", "0", data={"path": "d.jsonl", "max_examples": 12})[1])
    assert found["splits"]["state"] == "yellow" and "test examples" in found["splits"]["said"]


def test_a_configuration_that_cannot_be_built_is_a_row_and_a_line(check: Check) -> None:
    code, out, err = check("echo", "--json", seed_prompts={"guidence": "x"})
    assert code == 2 and rows(out)["configuration"]["state"] == "red" and "no such component" in err


def test_a_configuration_that_cannot_be_read_is_json_for_machines(check: Check, tmp_path: Path) -> None:
    code, out, err = check("echo", "--json", max_metric_cals=3)
    assert code == 2 and rows(out)["configuration"]["state"] == "red" and "did you mean 'max_metric_calls'?" in err
    assert json.loads(out)["ok"] is False


def test_a_damaged_ledger_is_said_and_fresh_begins_a_new_one(check: Check, tmp_path: Path) -> None:
    check()
    ledger = tmp_path / "runs" / "c" / "check" / "run.db"
    content = bytearray(ledger.read_bytes())
    content[len(content) // 2] ^= 0x40
    ledger.write_bytes(content)
    assert check()[0] == 4
    assert check("echo", "--fresh")[0] == 0


# -- keys, by name ----------------------------------------------------------------------------------------------------


def test_keys_are_shown_by_name_only(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {
        "agents": {
            "student": {"provider": "http.api", "params": {"headers": {"A": "Bearer ${ONE_KEY}"}, "headers_env": {"B": "TWO_KEY"}}},
            "teacher": {"provider": "litellm", "params": {"model": "anthropic/claude"}},
        },
        "reflection_lm": {"provider": "openai/gpt-5", "params": {}},
        "rim": {"judges": [{"type": "llm", "model": {"provider": "openai.chat", "params": {"api_key_env": "FIVE_KEY"}}}]},
        "seed_prompts": {"guidance": "$${NOT_ONE} and ${PLAIN_TEXT}"},
    }
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    [row] = keys(tree)
    assert row.state == "red" and row.said == "not set: ONE_KEY, TWO_KEY, FIVE_KEY, ANTHROPIC_API_KEY, OPENAI_API_KEY"
    for name in ("ONE_KEY", "TWO_KEY", "FIVE_KEY"):
        monkeypatch.setenv(name, "s3cret-value-of-a-key")
    [row] = keys(tree)
    assert row.state == "yellow" and "litellm usually reads ANTHROPIC_API_KEY, OPENAI_API_KEY" in row.said
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "s3cret-value-of-a-key")
    [row] = keys(tree)
    assert row.state == "green" and "s3cret" not in row.said


@pytest.mark.parametrize("provider", ["openai.chat", "openai.responses", "openai.sdk"])
def test_openais_variable_for_the_address_is_read_and_said(check: Check, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/")
    params = {"agent": {"model": "m"}} if provider == "openai.sdk" else {"model": "m"}
    agents = {"student": {"provider": provider, "params": params}}
    out = check(agents=agents)[1]
    assert re.search(rf"green +address +OPENAI_BASE_URL is the base_url of {provider}: http://127.0.0.1:9/v1/\n", out)
    assert "unreachable: no complete answer from http://127.0.0.1:9/v1/" in out
    params["base_url"] = "http://127.0.0.1:11/v1"
    out = check(agents=agents)[1]
    assert "OPENAI_BASE_URL" not in out and "from http://127.0.0.1:11/v1/" in out
    params.pop("base_url")
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:9")
    assert "base_url must start with http:// or https://" in check(agents=agents)[2]


def test_the_assistants_api_is_gone(check: Check) -> None:
    params = {"base_url": "http://127.0.0.1:9/v1", "assistant_id": "asst_1", "model": "m"}
    agents = {"student": {"provider": "openai.assistant", "params": params}}
    row = rows(check("echo", "--json", "--sample", "0", agents=agents)[1])["agent"]
    assert row["state"] == "yellow" and "2026-08-26" in row["said"] and '"provider": "openai.responses"' in row["said"]
    agents["student"]["params"]["base_url"] = "https://api.openai.com/v1"
    code, out, err = check("echo", "--json", "--sample", "0", agents=agents)
    assert code == 2 and "use provider: openai.responses" in err and rows(out)["configuration"]["state"] == "red"


# -- what it may take -------------------------------------------------------------------------------------------------

PRICED = {"student": {"provider": "python.callable", "params": {"callable": "agent.py:echo", "guidance": "field", "dollars_per_call": 0.5}}}


def test_a_dear_agent_is_asked_no_further_than_one_lesson(check: Check) -> None:
    out = check("echo", agents=PRICED)[1]
    assert "calls made: 2 student" in out and "would cost about $6.00; allow it with --max-usd 9" in out
    assert "dollars  about $75.00" in out
    out = check("echo", "--max-usd", "9", agents=PRICED)[1]
    assert "calls made: 12 student" in out


def test_limits_of_a_check_are_hard(check: Check) -> None:
    code, out, err = check("echo", "--max-usd", "0.6", "--fresh", agents=PRICED)
    assert code == 2 and "budget_exhausted" in out + err
    code, _, err = check("echo", "--max-usd", "1")
    assert code == 2 and "give the student a price" in err
    out = check("echo", "--max-tokens", "3000")[1]
    assert "budget_exhausted" in out


def test_what_optimize_says_of_the_last_check(check: Check, capfd: pytest.CaptureFixture[str]) -> None:
    check()
    assert run(["optimize", "c.yaml", "--max-metric-calls", "150"]) == 0
    out = capfd.readouterr().out
    assert "the last check estimated: calls up to 150 of the agent; tokens unknown" in out
    assert run(["optimize", "c.yaml", "--max-metric-calls", "30", "--run-dir", "other"]) == 0
    assert "the last check" not in capfd.readouterr().out


def test_an_estimate_is_close_to_what_a_run_takes(check: Check, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Tokens and dollars of a simulated student, a call: within a quarter of what the run is charged."""
    tree = {
        "agents": {"student": {"provider": "toyworld", "params": {"world": {"seed": 3}}}},
        "data": {"toyworld": {"seed": 3}},
        "operators": ["ablate"],  # the prompt does not grow
        "max_metric_calls": 400,
    }
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(tree))
    assert run(["check", "t.yaml", "--json", "--sample", "12"]) == 0
    told = json.loads(capfd.readouterr().out)["estimate"]
    assert run(["optimize", "t.yaml", "--quiet"]) == 0
    capfd.readouterr()
    spend = json.loads((tmp_path / "runs" / "t" / "optimized_prompts.json").read_text())["spend"]["student"]
    per_run = told["tokens"] / 400
    real = (spend["input_tokens"] + spend["output_tokens"]) / spend["calls"]
    assert per_run == pytest.approx(real, rel=0.25)
    assert told["dollars"] / 400 == pytest.approx(spend["dollars"] / spend["calls"], rel=0.25)


def test_the_commands_of_the_page_run(check: Check, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "configs").symlink_to(root / "configs")
    block = re.search(r"^```sh\n(.*?)^```", (root / "docs" / "check.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    for line in block[1].splitlines():
        assert run(shlex.split(line)[1:]) == 0, capfd.readouterr().err


def test_a_run_says_as_soon_as_the_seed_is_measured_that_prompts_cannot_help(check: Check, capfd: pytest.CaptureFixture[str]) -> None:
    check("right", "--sample", "0")
    for flags in ([], ["--json"]):
        assert run(["optimize", "c.yaml", "--run-dir", f"r{len(flags)}", "--max-metric-calls", "60", *flags]) == 0
        lines = capfd.readouterr().out.splitlines()
        at = next(n for n, line in enumerate(lines) if "the seed prompt is right wherever it was tried" in line)
        assert at < len(lines) - 5 and "take harder examples or stricter judges" in lines[at]
    check("echo", "--sample", "0")
    assert run(["optimize", "c.yaml", "--run-dir", "r3", "--max-metric-calls", "60"]) == 0
    assert "Headroom" not in capfd.readouterr().out
