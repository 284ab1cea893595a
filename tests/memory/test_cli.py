"""`gepa-atlas traces` and `skills`: what they print, and that bad input is one line and exit code 2."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from gepa_atlas.cli import run
from gepa_atlas.cli.traces_commands import _bench
from gepa_atlas.errors import ConfigError
from gepa_atlas.memory.store import Memory

from .lines import lesson_line, session_line
from .test_skills import stored

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEPA_ATLAS_MEMORY", raising=False)
    (tmp_path / "runs").mkdir()
    lines = [*(lesson_line(f"e{n}", after=n / 10) for n in range(11)), session_line()]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(list(arguments)) == 0
    return capsys.readouterr().out


def test_from_import_to_export(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "12 traces, 12 of them new" in said(capsys, "traces", "import", "in.jsonl", "--operation", "shop")
    assert (place / "runs" / "memory.db").exists()
    listed = json.loads(said(capsys, "traces", "list", "--min-delta", "0.85", "--json"))
    assert [row["example_id"] for row in listed] == ["e10", "e9"]
    assert said(capsys, "traces", "list", "--kind", "session").count("\n") == 1
    assert "3 of 3 traces became approved" in said(capsys, "traces", "review", "approved", "--operation", "shop", "--min-delta", "0.75")
    assert "approved -> quarantined" not in said(capsys, "traces", "show", listed[0]["id"])
    assert "1 of 1" in said(capsys, "traces", "review", "quarantined", listed[0]["id"], "--note", "wrong gold")
    shown = said(capsys, "traces", "show", listed[0]["id"])
    assert "approved -> quarantined  wrong gold" in shown and "What is e10?" in shown
    assert "2 traces" in said(capsys, "traces", "export", "good.jsonl", "--state", "approved", "--operation", "shop")
    assert [json.loads(line)["example"]["id"] for line in (place / "good.jsonl").read_text().splitlines()] == ["e8", "e9"]
    counted = json.loads(said(capsys, "traces", "stats", "--json"))
    assert {row["operation"]: row["traces"] for row in counted["operations"]} == {"shop": 11, "helpdesk-key": 1}
    assert "quarantined" in said(capsys, "traces", "stats")
    assert "no traces of this operation" in said(capsys, "traces", "stats", "--operation", "nobody's")


def test_skills(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Memory.open("runs/memory.db") as memory:
        stored(memory, range(3))
    assert [line.split()[1] for line in said(capsys, "skills", "list").splitlines()] == ["verified", "harmful"]
    assert len(said(capsys, "skills", "list", "--all").splitlines()) == 3
    (found,) = json.loads(said(capsys, "skills", "search", "order", "--json"))
    assert found["finding"] == "verified" and found["low"] > 0
    assert "no item was tried yet" in said(capsys, "skills", "list", "--operation", "nobody's")
    shown = said(capsys, "skills", "show", found["item_id"][:10])
    assert "Cite the order." in shown and "helped" in shown


BAD = {
    "list": "no memory here yet",
    "import nothing.jsonl": "there is no such file",
    "import nowhere": "no such run directory",
    "import in.jsonl --redact (": "not a regular expression",
    "import in.jsonl --redact a*": "matches the empty text",
    "--memory": "No such option",
}
BAD_LATER = {
    "list --state nice": "--state nice: there are pending, approved, quarantined, golden",
    "list --kind song": "there are lesson and session",
    "list --since yesterday": "is no time",
    "list --min-delta nan": "finite number",
    "list --limit 99999999999999999999": "less than or equal to",
    "show 00": "no such trace",
    "review approved": "name the traces, or give filters",
    "review approved x --operation y": "one of the two",
    "review golden --operation shop": "golden is earned",
    "review nice x": "STATE nice",
    "promote": "name the lessons",
    "promote 00": "no such trace",
    "export out.csv": "end it with .jsonl or .parquet",
    "export x.parquet --atlas": "session traces are JSON lines",
    "export .": "the name of the file says its form",
}


@pytest.mark.parametrize(("command", "why"), [*BAD.items(), *BAD_LATER.items()])
def test_bad_input_is_one_line(command: str, why: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if command in BAD_LATER:
        assert run(["traces", "import", "in.jsonl", "--operation", "shop"]) == 0
    capsys.readouterr()
    before = others(place)
    assert run(["traces", *shlex.split(command)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and why in err
    assert others(place) == before, "something was left behind"


def others(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if not path.name.startswith("memory.db"))


BLOCKS = ("{redact: ['(']}", "{url: 'mysql://x/y'}", "{operation: ' '}", "7", "{file: x}")


@pytest.mark.parametrize("block", BLOCKS)
def test_a_bad_memory_block_is_one_line(block: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "bad.yaml").write_text((ROOT / "configs/examples/toyworld.yaml").read_text() + f"\nmemory: {block}\n")
    assert run(["optimize", "bad.yaml", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "memory" in err
    assert not (place / "runs" / "bad").exists()


def page_commands() -> list[str]:
    page = (ROOT / "docs" / "memory.md").read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    commands = page_commands()
    assert len(commands) >= 8
    for command in commands:
        name, *arguments = shlex.split(command)
        if "ID" in arguments:
            capsys.readouterr()
            run(["traces", "list", "--state", "approved", "--json"])
            arguments[arguments.index("ID")] = json.loads(capsys.readouterr().out)[0]["id"]
        assert name == "gepa-atlas"
        assert run(arguments) == 0, command


def test_a_promotion_names_the_run_whose_variable_is_missing() -> None:
    tree = {"source": "x.yaml", "agents": {"student": {"provider": "http.api", "params": {"headers": {"A": "${NOT_SET_ANYWHERE}"}}}}}
    with pytest.raises(ConfigError, match=r"^the configuration of run r7: agents.*NOT_SET_ANYWHERE"):
        _bench({"run_id": "r7", "config": tree, "judges": ""}, (None, None, None))
