"""Processes that training starts: how many, what they are told, and that they end with the one that started them and with nobody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gepa_atlas.errors import ConfigError, Outage, Unhealthy
from gepa_atlas.handoff.workspace import Silent
from gepa_atlas.train import launch, runner, stages, worker
from gepa_atlas.train.config import LoadedTrain, load_train_config
from tests.train import toy

pytestmark = pytest.mark.timeout(90)

ROOT = Path(__file__).parent.parent.parent
# A server with vllm's name and health page. It starts a process of its own, as vllm does.
VLLM = """#!{python}
import http.server, json, os, pathlib, subprocess, sys, time
here = pathlib.Path(__file__).parent
given = [os.environ["CUDA_VISIBLE_DEVICES"], os.environ["VLLM_SERVER_DEV_MODE"]]
(here / "vllm.json").write_text(json.dumps([sys.argv[1:], *given]))
mode = (here / "mode").read_text()
engine = subprocess.Popen(["sleep", "600"])
(here / "pids").write_text(f"{os.getpid()} {engine.pid}")
if mode == "dies":
    print("RuntimeError: no CUDA device", file=sys.stderr)
    sys.exit(1)
began = time.monotonic()
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = self.path == "/health" and mode == "ready" and time.monotonic() - began > 0.5
        self.send_response(200 if ready else 503)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer((sys.argv[sys.argv.index("--host") + 1], int(sys.argv[sys.argv.index("--port") + 1])), Health).serve_forever()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to work in, with a `vllm` of ours first in PATH, and toy stages in this process and in workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "STAGES", toy.STAGES)
    for stage in toy.STAGES:
        monkeypatch.setitem(stages.BY_NAME, stage.name, stage)
    (tmp_path / "traces.jsonl").write_text("some lessons")
    (tmp_path / "my.yaml").write_text(
        "model: {source: tiny}\noutput_dir: out\nhandoff: {path: traces.jsonl}\ngrpo: {max_steps: 4}\n"
        "launch: {backend: accelerate, cpu: true}\n"
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "vllm").write_text(VLLM.replace("{python}", sys.executable))
    (tools / "vllm").chmod(0o755)
    (tools / "mode").write_text("ready")
    (tools / "sitecustomize.py").write_text(
        "from gepa_atlas.train import stages\nfrom tests.train import toy\n"
        "stages.STAGES = toy.STAGES\nstages.BY_NAME.update({s.name: s for s in toy.STAGES})\n"
    )
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{tools}:{ROOT}")
    monkeypatch.setattr(launch, "_POLL_SECONDS", 0.05)
    yield tools
    for pid in (tools / "pids").read_text().split() if (tools / "pids").exists() else []:
        assert not alive(int(pid)), "a process of the server outlived it"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def loaded(*sets: str) -> LoadedTrain:
    return load_train_config("my.yaml", sets, {})


SERVER = ("vllm.mode=server", "launch.cpu=false")


def test_two_processes_train_and_the_first_reports(place: Path) -> None:
    said: list[str] = []

    class Heard(Silent):
        def step(self, what: str, done: int, total: int | None) -> None:
            said.append(f"{what} {done} of {total}")

    ran = runner.run(loaded("launch.processes=2"), until="train", progress=Heard())
    assert ran.records["train"].status == "done" and said == [f"steps {n} of 4" for n in range(4)]
    log = Path("out/logs/train.log").read_text()
    assert log.startswith("$ ") and "--nproc_per_node 2" in log
    assert sorted(Path("out/ranks").read_text().split()) == ["0/2", "1/2"]


def test_fewer_processes_than_asked_for_is_an_error(place: Path) -> None:
    runner.run(loaded("launch.backend=inline"), until="validate")
    Path("out/train").mkdir()
    assert worker.main(["out", "train", "--processes", "2"]) == 2
    with pytest.raises(ConfigError, match="2 processes were asked for and 1 started"):
        launch.result_of(Path("out/train/worker.json"), 2, Path("out/logs/train.log"))


def test_an_outage_in_a_worker_is_an_outage_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.run(loaded("launch.backend=inline"), until="validate")
    monkeypatch.setenv("TOY_OUTAGE", "2")
    Path("out/train").mkdir()
    assert worker.main(["out", "train", "--processes", "1"]) == 75
    with pytest.raises(Outage, match="the judges are out at step 2"):
        launch.result_of(Path("out/train/worker.json"), 1, Path("out/logs/train.log"))


def test_a_worker_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("$ the command\ntorch.OutOfMemoryError: 80 GB\n")
    with pytest.raises(Unhealthy, match=r"code -9 and no result: torch.OutOfMemoryError: 80 GB \(all of it: .*train.log"):
        launch.result_of(tmp_path / "worker.json", -9, tmp_path / "train.log")


def test_the_server_lives_as_long_as_it_is_used(place: Path) -> None:
    config = loaded(*SERVER, "vllm.gpus=2", "vllm.tensor_parallel_size=2", "model.context=1024").config
    with launch.vllm_server(config, "some/model", Path("out"), Silent()) as url:
        assert launch.healthy(url, 1)
        argv, devices, dev_mode = json.loads((place / "vllm.json").read_text())
        pids = [int(pid) for pid in (place / "pids").read_text().split()]
        assert all(map(alive, pids))
    assert argv[:4] == ["serve", "some/model", "--host", "127.0.0.1"] and (devices, dev_mode) == ("0,1", "1")
    options = dict(zip(argv[4::2], argv[5::2], strict=True))
    assert options["--tensor-parallel-size"] == "2" and options["--max-model-len"] == "1024"
    assert json.loads(options["--weight-transfer-config"]) == {"backend": "nccl"} and options["--max-logprobs"] == "-1"
    assert all(map(gone, pids)) and not launch.healthy(url, 1)


@pytest.mark.parametrize(
    ("mode", "seconds", "says"),
    [("dies", 20, "ended with code 1 before it was ready: RuntimeError: no CUDA device"), ("hangs", 1, "did not answer within 1 s")],
)
def test_a_server_that_does_not_come_up_is_an_outage(place: Path, mode: str, seconds: int, says: str) -> None:
    (place / "mode").write_text(mode)
    config = loaded(*SERVER, f"vllm.start_timeout_s={seconds}").config
    with pytest.raises(Outage, match=says), launch.vllm_server(config, "m", Path("out"), Silent()):
        pass


def test_without_vllm_the_command_that_installs_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place / "nothing"))
    with (
        pytest.raises(ConfigError, match=r"pip install 'gepa-atlas\[vllm\]'"),
        launch.vllm_server(loaded(*SERVER).config, "m", Path("out"), Silent()),
    ):
        pass


def test_what_was_started_ends_with_a_parent_that_is_killed(place: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from gepa_atlas.train import launch; from gepa_atlas.handoff.workspace import Silent\n"
        "from gepa_atlas.train.config import load_train_config\n"
        f"config = load_train_config('my.yaml', {SERVER!r}, {{}}).config\n"
        "with launch.vllm_server(config, 'm', Path('out'), Silent()):\n    print('up', flush=True); time.sleep(600)\n"
    )
    stranger = subprocess.Popen(["sleep", "600"])
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
        parent.send_signal(signal.SIGKILL)
        assert all(gone(int(pid)) for pid in (place / "pids").read_text().split())
        assert alive(stranger.pid)
    finally:
        parent.stdout.close() if parent.stdout else None
        parent.wait()
        stranger.kill()
        stranger.wait()


def test_lines_that_a_dry_run_shows(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = loaded(*SERVER, "launch.processes=3")
    server, training = launch.launch_lines(found.config, found.base_dir, Path("/runs/x"), "some/model")
    assert server.startswith("VLLM_SERVER_DEV_MODE=1 CUDA_VISIBLE_DEVICES=0 vllm serve some/model --host 127.0.0.1 --port 8000 ")
    assert "CUDA_VISIBLE_DEVICES=1,2,3" in training and "accelerate.commands.launch --num_processes 3" in training
    assert training.endswith("-m gepa_atlas.train.worker /runs/x train --processes 3 --vllm-url http://127.0.0.1:8000")
    assert launch.launch_lines(loaded("launch.backend=inline").config, found.base_dir, Path("/runs/x"), "m") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(ConfigError, match="4 GPUs are asked for and it names 2"):
        launch.launch_lines(found.config, found.base_dir, Path("/runs/x"), "m")
