"""The server of the live page: who may read, what is said, while another process writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gepa_atlas.cli import run as cli
from gepa_atlas.store.view import RunView
from gepa_atlas.ui.shelf import Shelf
from gepa_atlas.ui.watched import Watched
from tests.ui.running import HOSTILE, Server, hostile_run, start_run, ui

pytest.importorskip("starlette", reason="the extra [ui] is not installed; [dev] has it")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a finished run, one of hostile texts, a damaged one, and what is no run."""
    place = tmp_path_factory.mktemp("runs")
    assert start_run(place / "toy", 80, 0.0).wait(120) == 0
    hostile_run(place)
    shutil.copytree(place / "toy", place / "torn")
    with (place / "torn" / "run.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 2000)
    (place / "empty").mkdir()
    (place.parent / "outside").mkdir()
    shutil.copy(place / "toy" / "run.db", place.parent / "outside" / "run.db")
    return place


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Server]:
    with ui(runs) as started:
        yield started


def ask(server: Server, path: str, **more: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {server.token}"}
    return httpx.get(server.url + path.removeprefix("/"), **{"headers": headers, **more})  # type: ignore[arg-type]


PATHS = ["", "runs/toy", "runs/toy/report", "assets/ui.js", "api/runs", "api/runs/toy", "api/events", "api/runs/toy/events", "nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_said_without_the_token(path: str, server: Server) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"cookie": "gepa_atlas_1=wrong"},
        {"authorization": f"Bearer {server.token[:-1]}"},
    ):
        refused = httpx.get(server.url + path, headers=headers)
        assert refused.status_code == 401 and "toy" not in refused.text
    assert httpx.get(server.url + path, params={"token": ""}).status_code == 401


def test_the_address_gives_a_cookie_and_leaves_the_address(server: Server) -> None:
    for path in ("", "runs/toy", "/evil.example/"):
        answer = httpx.get(f"{server.url}{path}?token={server.token}")
        assert answer.status_code == 303 and server.token not in answer.headers["location"]
        assert answer.headers["location"].startswith("/") and not answer.headers["location"].startswith("//")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert httpx.get(server.url, headers={"cookie": cookie.split(";")[0]}).status_code == 200


def test_another_host_name_is_refused(server: Server) -> None:
    """So a page elsewhere whose name is made to mean 127.0.0.1 reads nothing."""
    headers = {"authorization": f"Bearer {server.token}"}
    for host, status in (("evil.example", 400), ("127.0.0.1.evil.example", 400), ("localhost", 200)):
        assert httpx.get(server.url, headers=headers | {"host": host}).status_code == status


def test_every_page_forbids_what_it_does_not_need(server: Server) -> None:
    for path in ("", "runs/toy", "api/runs", "runs/none", "assets/ui.js"):
        answer = ask(server, path)
        assert (
            "default-src 'none'" in answer.headers["content-security-policy"] and "unsafe" not in answer.headers["content-security-policy"]
        )
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    report = ask(server, "runs/toy/report")
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in report.headers["content-security-policy"]


def test_the_report_is_the_file_as_it_is(server: Server, runs: Path) -> None:
    assert ask(server, "runs/toy/report").content == (runs / "toy" / "report.html").read_bytes()


@pytest.mark.parametrize("name", ["..", "../outside", "..%2foutside", "%2e%2e%2foutside", "toy%2f..", "empty", "none", "%00", "toy/../toy"])
def test_only_runs_directly_below_are_reached(name: str, server: Server) -> None:
    for path in (f"api/runs/{name}", f"runs/{name}/report", f"runs/{name}"):
        found = ask(server, path)
        assert found.status_code == 404 or found.url.path.rstrip("/").count("/") < 2 or "/toy" in found.url.path, path
        assert "outside" not in found.text


def test_the_list_names_every_run_and_says_why_one_cannot_be_read(server: Server, runs: Path) -> None:
    rows = {row["name"]: row for row in ask(server, "api/runs").json()}
    assert set(rows) == {"toy", "torn", HOSTILE}
    result = json.loads((runs / "toy" / "optimized_prompts.json").read_text())
    toy = rows["toy"]
    assert toy["status"] == "finished" and toy["rollouts"] == result["rollouts"]["spent"]
    assert toy["gain"]["split"] == "test" and toy["gain"]["mean"] == pytest.approx(result["test"]["gain"]["mean"], abs=1e-6)
    assert toy["gain"]["low"] == pytest.approx(result["test"]["gain"]["low"], abs=1e-6)
    assert rows["torn"]["status"] == "damaged" and "damaged" in rows["torn"]["reason"] and rows["torn"]["gain"] is None
    assert rows[HOSTILE]["status"] == "stopped" and rows[HOSTILE]["gain"] == rows[HOSTILE]["gain"] | {
        "split": "val",
        "mean": 0.5,
        "pairs": 8,
    }
    assert ask(server, "api/runs/torn").status_code == 409


def test_what_a_run_says_is_what_its_record_says(server: Server, runs: Path) -> None:
    told = ask(server, "api/runs/toy").json()
    with RunView.read(runs / "toy") as run:
        decisions = [event.payload["decision"] for event in run.events() if event.kind == "slot"]
        calls = run.calls()
    assert [{k: v for k, v in d.items() if k != "rollouts_told"} for d in told["decisions"]] == [
        d for d in decisions if d["kind"] != "idle"
    ]
    assert told["decisions"][-1]["rollouts_told"] == sum(d["rollouts"] for d in decisions)
    assert told["state"]["spend"]["student"]["calls"] == calls["by_role"]["student"] == told["state"]["rollouts"]
    assert told["state"]["traffic"] == {"calls": {}, "slots": [], "per_minute": {}}
    assert told["state"]["limits"]["rollouts"] == 80


def test_a_second_look_reads_on_and_a_new_run_in_its_place_is_another_one(runs: Path, tmp_path: Path) -> None:
    place = tmp_path / "runs"
    shutil.copytree(runs / "toy", place / "one")
    watched = Watched(place / "one")
    watched.look()
    first = watched.state()
    assert first["status"] == "finished" and first == (watched.look(), watched.state())[1]
    shutil.rmtree(place / "one")
    hostile_run(place).rename(place / "one")  # shorter than what was there
    watched.look()
    assert watched.state()["run_id"] != first["run_id"] and watched.state()["limits"]["rollouts"] == 10
    assert len(watched.decisions()) == 2
    shutil.rmtree(place / "one")
    assert Shelf(place).rows() == [] and Shelf(place).find("one") is None


def test_a_live_run_is_followed_from_another_process_without_its_lock(tmp_path: Path) -> None:
    """Every decision comes once and in order, also over a lost connection, and the run does not notice."""
    got: list[dict[str, object]] = []
    states: list[dict[str, object]] = []
    with ui(tmp_path, "--no-token") as server:
        run = start_run(tmp_path / "live", 60, 0.1)
        until = time.monotonic() + 60
        while time.monotonic() < until and not (states and states[-1]["status"] == "finished"):
            headers = {"last-event-id": str(len(got))}
            try:
                with httpx.stream("GET", f"{server.url}api/runs/live/events", headers=headers, timeout=20) as stream:
                    for line in stream.iter_lines():
                        if line.startswith("data: "):
                            told = json.loads(line[6:])
                            assert told["first"] == len(got)
                            got += told["decisions"]
                            states.append(told["state"])
                            if len(states) % 4 == 0 or told["state"]["status"] == "finished":
                                break  # the connection is lost
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        assert run.wait(60) == 0
    assert states[-1]["status"] == "finished"
    moving = [state["traffic"] for state in states if state["status"] == "running"]
    assert any(now["calls"].get("student") and now["slots"] and now["per_minute"].get("student") for now in moving)  # type: ignore[index]
    with RunView.read(tmp_path / "live") as view:
        decisions = [e.payload["decision"] for e in view.events() if e.kind == "slot" and e.payload["decision"]["kind"] != "idle"]
    assert [d["n"] for d in got] == [d["n"] for d in decisions]
    spent = [state["rollouts"] for state in states]
    assert spent == sorted(spent) and len(set(spent)) > 3  # type: ignore[type-var]


def test_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that got into a run directory under another environment, and the server's own."""
    monkeypatch.setenv("PLANTED_API_KEY", HOSTILE)
    hostile_run(tmp_path)
    with ui(tmp_path) as server:
        listed = ask(server, "api/runs").text
        assert HOSTILE not in listed and "[redacted]" in listed and server.token not in listed


def test_bad_options_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, said in (
            (["--runs", str(tmp_path / "none")], "there is no such directory"),
            (["--runs", str(tmp_path), "--port", port], "choose another one"),
            (["--runs", str(tmp_path), "--token", "short"], "8 to 200"),
            (["--runs", str(tmp_path), "--token", "long-enough", "--no-token"], "exclude each other"),
            (["--runs", str(tmp_path), "--port", "70000"], "65535"),
        ):
            assert cli(["ui", *options]) == 2
            error = capsys.readouterr().err
            assert said in error and error.count("\n") == 1


def test_it_ends_at_once_while_pages_are_open(tmp_path: Path) -> None:
    with ui(tmp_path, "--token", "a-token-of-mine") as server:
        with httpx.stream("GET", f"{server.url}api/events", headers={"authorization": f"Bearer {server.token}"}) as stream:
            assert next(stream.iter_lines()) == "event: runs"
            began = time.monotonic()
            os.kill(server.process.pid, signal.SIGINT)
            assert server.process.wait(10) == 0
        assert time.monotonic() - began < 5
