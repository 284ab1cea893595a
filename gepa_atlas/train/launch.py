"""Training in several processes, and generation by a vllm server beside it: command lines, starting, watching, ending.

What is started here is ended here, by its own process group (`gepa_atlas.train.keeper`); nothing is looked up by name or port.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gepa_atlas import errors
from gepa_atlas.configfile import read_yaml
from gepa_atlas.errors import AtlasError, ConfigError, Outage, Unhealthy
from gepa_atlas.handoff.workspace import Progress, StageResult, Workspace
from gepa_atlas.train.config import LoadedTrain, TrainConfig
from gepa_atlas.train.stages import Stage
from gepa_atlas.train.versions import installed

RESULT = "worker.json"  # what the first process of a stage made, or why it could not; in the stage's folder
SIGN = "@atlas "  # opens a line of progress on a worker's stdout
_POLL_SECONDS = 1.0
_ALIVE_SECONDS = 30.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Line:
    """A command as it will be run: extra environment and arguments."""

    argv: tuple[str, ...]
    env: Mapping[str, str]

    def __str__(self) -> str:
        return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in self.env.items()), shlex.join(self.argv)])


def training_line(config: TrainConfig, base_dir: Path, output_dir: Path, stage: str, url: str | None = None) -> Line:
    """The command that runs a stage in `launch.processes` processes. On processors torch's own launcher: accelerate starts one there."""
    n = config.launch.processes
    worker = ["-m", "gepa_atlas.train.worker", str(output_dir), stage, "--processes", str(n)]
    worker += ["--vllm-url", url] if url else []
    if config.launch.cpu:
        env = {"OMP_NUM_THREADS": "1"}
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local_addr", _LOOPBACK, "--nproc_per_node", str(n)]
        return Line((*line, *worker), env)
    line = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        str(n),
        "--num_machines",
        "1",
        "--main_process_port",
        "0",
    ]
    if config.launch.config is not None:
        line += ["--config_file", str(base_dir / config.launch.config)]
    elif n > 1:
        line += ["--multi_gpu"]
    line += ["--mixed_precision", {"bfloat16": "bf16", "float16": "fp16"}.get(config.model.dtype, "no")]
    env = _devices(config.vllm.gpus, n) if config.vllm.mode == "server" and config.vllm.url is None else {}
    return Line((*line, *worker), env)


def with_url(config: TrainConfig, url: str | None) -> TrainConfig:
    """The configuration with the address of the server that was started for it."""
    return config if url is None else config.model_copy(update={"vllm": config.vllm.model_copy(update={"url": url})})


def server_line(config: TrainConfig, model: str, port: int) -> Line:
    """vllm's own server as trl's client needs it: weight transfer by NCCL, logprobs after sampling parameters, no cap on their number."""
    v, m = config.vllm, config.model
    argv = [
        "vllm", "serve", model, "--host", _LOOPBACK, "--port", str(port), "--tensor-parallel-size", str(v.tensor_parallel_size),
        "--gpu-memory-utilization", str(v.gpu_memory_utilization), "--max-model-len", str(m.context), "--dtype", m.dtype,
        "--weight-transfer-config", json.dumps({"backend": "nccl"}), "--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1",
    ]  # fmt: skip
    argv += ["--revision", m.revision] if m.revision and m.source == "pretrained" else []
    argv += ["--trust-remote-code"] if m.trust_remote_code else []
    argv += ["--enable-scale-out"] if _at_least(installed("vllm"), (0, 30)) else []
    return Line(tuple(argv), {"VLLM_SERVER_DEV_MODE": "1", **_devices(0, v.gpus)})


def _devices(skip: int, count: int) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES for `count` GPUs after the first `skip` of those that this process may see."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [n for n in seen.split(",") if n] if seen else [str(n) for n in range(skip + count)]
    if len(names) < skip + count:
        raise ConfigError(f"CUDA_VISIBLE_DEVICES={seen}: {skip + count} GPUs are asked for and it names {len(names)}; ask for fewer")
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[skip : skip + count])}


def _at_least(version: str | None, wanted: tuple[int, int]) -> bool:
    if version is None:
        return False
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= wanted


# -- a stage in processes of its own ----------------------------------------------------------------------------------------


def run_launched(stage: Stage, work: Workspace, config: TrainConfig, url: str | None = None) -> StageResult:
    """Run a stage through `training_line`. Its log is logs/<stage>.log; raises what its first process raised."""
    result = work.folder / RESULT
    result.unlink(missing_ok=True)
    logs = work.output_dir / "logs"
    logs.mkdir(exist_ok=True)
    log = logs / f"{stage.name}.log"
    line = training_line(config, work.base_dir, work.output_dir, stage.name, url)
    with log.open("ab") as file:
        file.write(f"$ {line}\n".encode())
        file.flush()
        with started(line, stdout=subprocess.PIPE, stderr=file) as process:
            assert process.stdout is not None
            for raw in process.stdout:
                _heard(raw, file, work.progress)
            code = process.wait()
    return result_of(result, code, log)


def _heard(raw: bytes, log: IO[bytes], progress: Progress) -> None:
    """A line of a worker: progress is shown, the rest goes to the log."""
    text = raw.decode("utf-8", "replace").rstrip("\n")
    if not text.startswith(SIGN):
        log.write(raw)
        log.flush()
        return
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = json.loads(text.removeprefix(SIGN))
        if "note" in said:
            progress.note(str(said["note"]))
        else:
            progress.step(said["what"], said["done"], said["total"])


def result_of(path: Path, code: int, log: Path) -> StageResult:
    """What a worker's first process left at `path`, or the error that it left, raised. `code`: the launcher's exit code."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise Unhealthy(f"a training process ended with code {code} and no result: {last_line(log)} (all of it: {log})") from None
    if "error" in found:
        kind = vars(errors).get(found["kind"], AtlasError)
        raise (kind if isinstance(kind, type) and issubclass(kind, AtlasError) else AtlasError)(found["error"])
    if code != 0:
        raise Unhealthy(f"a training process ended with code {code}: {last_line(log)} (all of it: {log})")
    return StageResult(tuple(found["outputs"]), found["figures"])


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1][:300] if lines else "it said nothing"


@contextlib.contextmanager
def started(line: Line, *, stdout: int | IO[bytes], stderr: int | IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The command, kept; ended with everything it started when the block is left."""
    keeper = [sys.executable, "-m", "gepa_atlas.train.keeper", *line.argv]
    process = subprocess.Popen(keeper, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env={**os.environ, **line.env})
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()  # the keeper ends the group
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# -- the vllm server ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def vllm_server(config: TrainConfig, model: str, output_dir: Path, progress: Progress) -> Iterator[str]:
    """The address of a vllm server: the configured one, or one that is started for the length of the block.

    Raises Outage when it does not answer /health within vllm.start_timeout_s, ConfigError when vllm cannot be started.
    """
    if config.vllm.url is not None:
        _wait_healthy(config.vllm.url, config.vllm.start_timeout_s, None, None)
        yield config.vllm.url
        return
    port = config.vllm.port or free_port()
    line = server_line(config, model, port)
    logs = output_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "vllm.log"
    with log.open("wb") as file:
        file.write(f"$ {line}\n".encode())
        file.flush()
        progress.note(f"starting {line} (log: {log})")
        with started(line, stdout=file, stderr=file) as process:
            url = f"http://{_LOOPBACK}:{port}"
            _wait_healthy(url, config.vllm.start_timeout_s, process, log)
            yield url


def _wait_healthy(url: str, seconds: float, process: subprocess.Popen[bytes] | None, log: Path | None) -> None:
    deadline = time.monotonic() + seconds
    while not healthy(url, min(_ALIVE_SECONDS, seconds)):
        said = f": {last_line(log)} (all of it: {log})" if log else ""
        if process is not None and process.poll() is not None:
            if process.returncode == 127:
                raise ConfigError(f"vllm: the command is not installed; run `pip install 'gepa-atlas[vllm]'`, or set vllm.mode: off{said}")
            raise Outage(f"the vllm server ended with code {process.returncode} before it was ready{said}")
        if time.monotonic() > deadline:
            raise Outage(f"{url}/health did not answer within {seconds:g} s (vllm.start_timeout_s){said}")
        time.sleep(_POLL_SECONDS)


def healthy(url: str, seconds: float) -> bool:
    """Whether GET url/health answers 200."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or _LOOPBACK, parts.port or 80, timeout=seconds)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as found:
        found.bind((_LOOPBACK, 0))
        port: int = found.getsockname()[1]
        return port


def launch_lines(config: TrainConfig, base_dir: Path, output_dir: Path, model: str) -> list[str]:
    """What `run` will start, for a reader: nothing when every stage runs in this process."""
    if config.launch.backend == "inline":
        return []
    server = config.vllm.mode == "server" and config.vllm.url is None
    lines: Sequence[Line] = [server_line(config, model, config.vllm.port or 8000)] if server else []
    url = config.vllm.url or (f"http://{_LOOPBACK}:{config.vllm.port or 8000}" if server else None)
    return [str(line) for line in (*lines, training_line(config, base_dir, output_dir, "train", url))]


def accelerate_kind(loaded: LoadedTrain) -> str | None:
    """`distributed_type` of the accelerate configuration that a run names; None where it names none. Raises ConfigError."""
    if loaded.config.launch.config is None:
        return None
    return str(read_yaml(loaded.base_dir / loaded.config.launch.config).get("distributed_type", "NO"))
