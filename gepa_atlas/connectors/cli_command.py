"""The `cli.command` provider: an agent that is a program. An argument list, never a shell.

Each call runs in a session of its own with a short environment and a temporary home, and ends with its whole process group.
That is hygiene, not a sandbox: the program can still read and write what its user can.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gepa_atlas.connectors.answers import Clock, FieldPath, OpaqueParams, attempt, deadline, field
from gepa_atlas.connectors.placement import demo_rows, encoded, guidance_text, no_place_for, prompt_text
from gepa_atlas.connectors.process import Ended, Limits, run_process
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.errors import AgentCrashed, BadRequest, ConfigError, Garbled
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.secrets import scrub
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Task, digest

_VERSION = 1
_CODE_OPTIONS = ("-c", "-e", "-E", "--eval", "--command", "-Command", "-r")  # what follows them is code to somebody
_INTERPRETER = re.compile(r"(ba|da|a|z|k|mk|c|tc|fi)?sh|(\{python\}|python|pypy|perl|ruby|node|php|lua)[\d.]*")
_CODE_CLUSTER = re.compile(r"-[A-Za-z]*[ceE]")  # -lc, -ec, -Ic, -ne: several options in one, the last of which takes code
_HASHED_BYTES = 4_000_000


class CommandParams(OpaqueParams):
    """`argv` items that are exactly "{prompt}" or "{prompt_file}" take the prompt, or the path of a file with it; without them it
    comes on stdin. "{python}" as an item is the Python interpreter that runs gepa-atlas."""

    argv: tuple[str, ...] = Field(min_length=1)
    stdin: Literal["prompt", "json"] = "prompt"  # json: {prompt, question, context, guidance, demos, settings} on stdin
    env: tuple[str, ...] = ()  # names of variables to pass on, beside PATH, HOME (temporary) and LANG
    cwd: str = "."  # from the directory of the configuration
    memory_mb: int | None = Field(None, ge=16)
    cpu_seconds: int | None = Field(None, ge=1)
    response_format: Literal["text", "json"] = "text"
    response_field: FieldPath = "response"  # with response_format: json
    strip: bool = True  # white space around a text answer

    @field_validator("argv", mode="before")
    @classmethod
    def _a_list(cls, argv: Any) -> Any:
        if isinstance(argv, str):
            form = json.dumps([part for part in argv.split()])
            raise ValueError(f"a command is a list of arguments, since no shell reads it; write it as {form}")
        return argv

    @field_validator("argv")
    @classmethod
    def _prompt_is_data(cls, argv: tuple[str, ...]) -> tuple[str, ...]:
        for before, item in zip(("", *argv), argv, strict=False):
            if "{prompt}" in item and item != "{prompt}":
                raise ValueError(f"{item!r} mixes the prompt with other text; '{{prompt}}' must be an item of its own")
            if item == "{prompt}" and before in _CODE_OPTIONS:
                raise ValueError(f"after {before} the prompt would be run as code; pass it on stdin or as a plain argument")
            if item == "{prompt}" and (reader := _reads_code(argv[: argv.index(item)])):
                raise ValueError(f"{reader} would run the prompt as code; pass it on stdin or as an argument of your program")
            if "\0" in item:
                raise ValueError("an argument cannot contain a NUL character")
        if argv[0] in ("{prompt}", "{prompt_file}"):
            raise ValueError("the first item is the program; it cannot be the prompt")
        return argv

    @model_validator(mode="after")
    def _placeable(self) -> CommandParams:
        if self.guidance in ("system", "turns"):
            raise ValueError("guidance: a command has no chat; use prefix, suffix, or field with stdin: json")
        if self.stdin == "json" and not {"{prompt}", "{prompt_file}"}.isdisjoint(self.argv):
            raise ValueError("stdin: json already carries the prompt; drop '{prompt}' and '{prompt_file}' from argv")
        if self.guidance == "field" and self.stdin != "json":
            raise ValueError("guidance: field needs stdin: json, where guidance and demos have fields")
        return self


class CommandAgent:
    def __init__(self, params: CommandParams, base_dir: Path, where: str) -> None:
        self._params = params
        self._cwd = (base_dir / params.cwd).resolve()
        if not self._cwd.is_dir():
            raise ConfigError(f"{where}.cwd: {str(self._cwd)!r} is not a directory")
        self._program = _found(params.argv[0], self._cwd, where)
        self._who = f"the command {self._program.name}"
        shown = {"version": _VERSION, "params": params.answering(), "files": _sources(params.argv, self._cwd)}
        self._identity = "cli:" + digest(shown, 16)
        self._endpoint = params.endpoint_at("cli:" + digest([params.argv, params.cwd], 8))

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def run(self, task: Task) -> Attempt:
        """Raises CallError. When it returns, or is cancelled, no process of this call is left."""
        p = self._params
        clock = Clock()
        home = mkdtemp(prefix="gepa-atlas-")
        try:
            argv, given = self._request(task, Path(home))
            async with deadline(p.timeout, self._who):
                limits = Limits(p.max_bytes, p.memory_mb, p.cpu_seconds)
                ended = await run_process(argv, given, env=self._environment(home), cwd=self._cwd, limits=limits, who=self._who)
        finally:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)  # milliseconds on a busy disk
        return attempt(self._text(ended), clock.usage(p), self._who, p.max_bytes)

    def preview(self, task: Task) -> dict[str, Any]:
        """The argument list and what goes to stdin, as text; a prompt file is shown as stdin, its path as a placeholder."""
        file = "{prompt_file}" in self._params.argv
        with TemporaryDirectory(prefix="gepa-atlas-") as home:
            argv, given = self._request(task, Path(home))
            shown = [item.replace(home, "HOME") for item in argv]
            text = (Path(home) / "prompt.txt").read_text("utf-8") if file else given.decode("utf-8")
        return {"argv": shown, "prompt_file" if file else "stdin": text, "cwd": str(self._cwd), "env": ["PATH", "LANG", *self._params.env]}

    def _request(self, task: Task, home: Path) -> tuple[list[str], bytes]:
        """The argument list and what goes to stdin."""
        p = self._params
        settings = dict(task.guidance.settings)
        if p.stdin != "json" and (refused := no_place_for(settings, (), f"{self._who}, without stdin: json,")):
            raise refused
        prompt = prompt_text(task, p)
        raw = encoded(prompt, "the prompt")
        argv = [str(self._program), *(sys.executable if item == "{python}" else item for item in p.argv[1:])]
        if "{prompt}" in argv:
            _fits_an_argument(prompt, argv)
            return [prompt if item == "{prompt}" else item for item in argv], b""
        if "{prompt_file}" in argv:
            file = home / "prompt.txt"
            file.write_bytes(raw)
            return [str(file) if item == "{prompt_file}" else item for item in argv], b""
        return argv, self._document(task, prompt) if p.stdin == "json" else raw

    def _document(self, task: Task, prompt: str) -> bytes:
        document = {
            "prompt": prompt,
            "question": task.question.text,
            "context": task.question.context,
            "guidance": guidance_text(task.guidance, self._params, demos_apart=True),
            "demos": demo_rows(task.guidance.demos),
            "settings": dict(task.guidance.settings),
        }
        return encoded(json.dumps(document, ensure_ascii=False), "the request")

    def _environment(self, home: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", *self._params.env) if name in os.environ}
        return {"LANG": "C.UTF-8"} | kept | {"HOME": home}

    def _text(self, ended: Ended) -> str | None:
        p = self._params
        if ended.code != 0:
            how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
            last = scrub(ended.last_error_line)
            raise AgentCrashed(f"{self._who} {how}" + (f": {last}" if last else ", without a word on stderr"))
        try:
            text = ended.output.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Garbled(f"{self._who} wrote bytes that are not UTF-8, from byte {error.start} on") from None
        if p.response_format == "text":
            return text.strip() if p.strip else text
        if not text.strip():
            return None
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise Garbled(f"{self._who} wrote something that is not JSON: {scrub(text.strip()[:120])!r}") from None
        return field(document, p.response_field, self._who)


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    return CommandAgent(load(CommandParams, params, surroundings.where), surroundings.base_dir, surroundings.where)


def _reads_code(before: tuple[str, ...]) -> str:
    """The program for which what comes after these items is code, or the name of a file of code; empty for none."""
    if before and Path(before[0]).name == "ssh":  # which hands all its arguments to a shell, over there
        return "ssh"
    options = 0
    while options < len(before) and before[-1 - options][:1] in ("-", "+"):
        options += 1
    program = Path(before[-1 - options]).name if options < len(before) else ""
    first = options + 1 == len(before)
    code = any(_CODE_CLUSTER.fullmatch(item) for item in before[len(before) - options :])
    return program if _INTERPRETER.fullmatch(program) and (first or code) else ""


def _found(program: str, cwd: Path, where: str) -> Path:
    """The program's file: as a path from `cwd` when it has a slash, else on PATH."""
    if program == "{python}":
        return Path(sys.executable)
    found = shutil.which(str(cwd / program) if "/" in program else program)
    if found is None:
        raise ConfigError(f"{where}.argv: there is no program {program!r}; give its path, or put it on PATH and make it executable")
    return Path(found)


def _sources(argv: tuple[str, ...], cwd: Path) -> dict[str, str]:
    """Digests of the files named in `argv`: a changed agent is another agent. Of large ones only the size."""
    files = {}
    for item in argv:
        path = cwd / item
        if "\n" not in item and len(item) < 1024 and path.is_file():
            size = path.stat().st_size
            files[item] = hashlib.sha256(path.read_bytes()).hexdigest() if size <= _HASHED_BYTES else f"{size} bytes"
    return files


def _fits_an_argument(prompt: str, argv: list[str]) -> None:
    if "\0" in prompt:
        raise BadRequest("the prompt contains a NUL character, which no argument can hold; pass it on stdin")
    before = argv[argv.index("{prompt}") - 1]
    if prompt.startswith("-") and not before.startswith("-"):
        raise BadRequest("the prompt begins with '-' and would be read as an option; put '--' before '{prompt}' in argv, or use stdin")
