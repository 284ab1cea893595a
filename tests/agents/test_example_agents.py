"""The agents a user copies, as real processes on the embedded model, and the configurations that pair with them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gepa_atlas.cli import run as gepa_atlas
from gepa_atlas.config import load_config
from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.data import load_examples
from gepa_atlas.llm.local import LocalModel
from gepa_atlas.llm.registry import build_model
from gepa_atlas.llm.serve import serving
from gepa_atlas.types import Demo, Guidance, Task

ROOT = Path(__file__).parent.parent.parent
WRAPPERS = ROOT / "configs" / "wrappers"
BUDGET = 10  # enough to go through every step; what a search is worth is shown elsewhere

pytestmark = pytest.mark.local


@contextmanager
def started_service() -> Iterator[str]:
    """The address of agents/http_service.py, running as its own process on a free port."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "agents" / "http_service.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def surroundings(local_model: LocalModel) -> Iterator[None]:
    """What the head comments of the configurations tell a user to start: the service, and the embedded model behind a server."""
    with started_service() as measure, serving(local_model) as model, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEASURE_URL", measure)
        patch.setenv("MODEL_BASE_URL", model)
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def student(name: str, **params: Any) -> tuple[Any, Any]:
    loaded = load_config(WRAPPERS / f"{name}.yaml")
    given = loaded.config.agents.student
    spec = AgentSpec(provider=given.provider, params={**given.params, **params})
    return build_agent(spec, build_model=build_model, base_dir=loaded.base_dir), load_examples(loaded.config.data, loaded.base_dir)


@pytest.mark.parametrize("name", ["chat", "command", "http", "python"])
def test_demonstrations_reach_the_model_behind_each_agent(name: str, surroundings: None) -> None:
    more = {"env": ["MODEL_BASE_URL", "PYTHONPATH"]} if name == "command" else {}
    agent, data = student(name, **more)
    guidance = Guidance("", tuple(Demo.of(e) for e in data.train[:4]))
    asked = data.val[:3]

    async def answers() -> list[str | None]:
        return [attempt.output for attempt in await asyncio.gather(*(agent.run(Task(e.public(), guidance)) for e in asked))]

    told = asyncio.run(answers())
    right = sum(output == e.answer for output, e in zip(told, asked, strict=True))
    assert right >= 2, f"{name}: without demonstrations none is right, with them {right} of 3: {told}"


@pytest.mark.parametrize("name", ["chat", "command", "http", "python"])
def test_each_wrapper_configuration_runs(name: str, surroundings: None, tmp_path: Path) -> None:
    overrides = [f"max_metric_calls={BUDGET}", "minibatch=2", "concurrency=2"]
    if name == "command":
        overrides.append("agents.target.params.env=[MODEL_BASE_URL, PYTHONPATH]")
    arguments = ["optimize", str(WRAPPERS / f"{name}.yaml"), "--run-dir", str(tmp_path / "run")]
    assert gepa_atlas([*arguments, *(part for o in overrides for part in ("--set", o))]) == 0
    told = json.loads((tmp_path / "run" / "optimized_prompts.json").read_text())
    assert told["best_candidate"]["guidance"]
    lessons = [json.loads(line) for line in (tmp_path / "run" / "traces.jsonl").read_text().splitlines()]
    assert lessons and all(lesson["before"]["value"] is not None for lesson in lessons)


def test_the_quickstart_configuration_runs_with_its_defaults_merged_in(tmp_path: Path) -> None:
    """A file over `defaults: [quickstart]`, as ATLAS's users start: the same search with a small budget."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"defaults: [{ROOT}/configs/examples/quickstart]\nmax_metric_calls: 8\nminibatch: 2\n")
    data = f"data.path={ROOT}/configs/examples/data/orders.jsonl"
    sets = ["--set", data, "--set", "agents.target.params.max_tokens=8"]
    assert gepa_atlas(["optimize", str(mine), "--run-dir", str(tmp_path / "run"), "--quiet", *sets]) == 0
    told = json.loads((tmp_path / "run" / "optimized_prompts.json").read_text())
    assert told["best_candidate"]["guidance"].startswith("Extract the order number")


@pytest.mark.parametrize("name", ["openai_existing_agent", "openai_config"])
def test_configurations_with_a_teacher_run_on_local_servers(
    name: str, surroundings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As their head comments say: with the embedded model's server in the place of OpenAI's."""
    monkeypatch.setenv("OPENAI_BASE_URL", os.environ["MODEL_BASE_URL"])
    monkeypatch.setenv("OPENAI_API_KEY", "none-is-needed")
    monkeypatch.setenv("AGENT_URL", os.environ["MEASURE_URL"].replace("/measure", "/chat"))
    for role in ("TEACHER_MODEL", "REFLECTION_LM", *(["STUDENT_MODEL"] if name == "openai_config" else [])):
        monkeypatch.setenv(role, "local")
    overrides = ["max_metric_calls=9", "minibatch=2", "concurrency=2", "protocol.params.max_tokens=16", "operators=[ablate, reflect]"]
    overrides += ["operator_options.reflect.max_tokens=30"]
    overrides += ["agents.student.params.max_tokens=12"] if name == "openai_config" else []
    arguments = ["optimize", str(WRAPPERS / f"{name}.yaml"), "--run-dir", str(tmp_path / "run"), "--quiet"]
    assert gepa_atlas([*arguments, *(part for o in overrides for part in ("--set", o))]) == 0
    told = json.loads((tmp_path / "run" / "optimized_prompts.json").read_text())
    assert "teacher_adaptive_template" in told["best_candidate"] and "student_baseline_template" not in told["best_candidate"]
    lessons = [json.loads(line) for line in (tmp_path / "run" / "traces.jsonl").read_text().splitlines()]
    assert lessons and all(lesson["before"]["value"] is not None for lesson in lessons)
    assert {lesson["protocol"] for lesson in lessons} == {"lesson" if name == "openai_existing_agent" else "probe"}
    assert "none-is-needed" not in "".join(p.read_text("utf-8", "replace") for p in (tmp_path / "run").iterdir() if p.is_file())


def test_the_command_as_its_head_comment_shows_it() -> None:
    prompt = "Message: My order AB-33221 is late\nOrder number: AB-33221\n\nMessage: Where is order CD-12345?\nOrder number:"
    environment = {name: value for name, value in os.environ.items() if name != "MODEL_BASE_URL"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "agents" / "command.py")]
    done = subprocess.run(command, input=prompt, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout, done.returncode) == ("CD-12345\n", 0), done.stderr
    broken = subprocess.run(
        command, input=prompt, capture_output=True, text=True, env={**environment, "MODEL_BASE_URL": "http://127.0.0.1:1/v1"}, timeout=120
    )
    assert broken.returncode == 1 and len(broken.stderr.splitlines()) == 1


def test_the_service_as_its_head_comment_shows_it(surroundings: None) -> None:
    url = os.environ["MEASURE_URL"]
    demos = [{"question": f"{n} kilometres", "answer": f"{n} km"} for n in (7, 31, 5)]
    answer = httpx.post(url, json={"text": "12 kilometres", "examples": demos}, timeout=120)
    assert answer.json() == {"result": {"text": "12 km"}}
    assert httpx.post(url, content=b"not json").status_code == 400
    assert httpx.post(url, json={"word": "x"}).status_code == 400
    chat = url.replace("/measure", "/chat")
    assert httpx.post(chat, json={"message": "12 kilometres"}, timeout=120).json()["response"]
    assert httpx.post(chat, json={"text": "x"}).status_code == 400


@pytest.mark.parametrize(
    "file", ["command.py", "dspy_program.py", "function.py", "graph.py", "http_service.py", "mcp_server.py", "sdk_agent.py"]
)
def test_an_example_stays_short_enough_to_copy(file: str) -> None:
    assert len((ROOT / "agents" / file).read_text().splitlines()) <= 100
