"""`gepa-atlas init`: a commented configuration, a sample of data, and what to type next."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

EPILOG = """
Examples:

  gepa-atlas init                                   (asks, in a terminal)

  gepa-atlas init --provider http.api --agent http://127.0.0.1:8000/chat --data my.jsonl
"""


_SAMPLE = "examples.jsonl"


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a provider needs to be told: the question, an answer that can be typed over, a file that makes that answer work."""

    asks: str
    example: str
    sample: str = ""  # template of agent.py
    key: str = ""  # variable that must hold a key
    argv: bool = False


_KINDS = {
    "chat": _Kind("Model", "local"),
    "http.api": _Kind("Address of your agent", "http://127.0.0.1:8000/chat"),
    "cli.command": _Kind("Command of your agent", "{python} agent.py", "agent_command", argv=True),
    "python.callable": _Kind("Function of your agent", "agent.py:answer", "agent_function"),
    "openai.chat": _Kind("Address of the server", "http://127.0.0.1:8000/v1"),
    "openai.responses": _Kind("Model", "gpt-5-mini", key="OPENAI_API_KEY"),
    "openai.assistant": _Kind("Address of the server", "http://127.0.0.1:8000/v1"),
    "openai.sdk": _Kind("Model", "gpt-5-mini", key="OPENAI_API_KEY"),
    "litellm": _Kind("Model", "openai/gpt-5-mini", key="OPENAI_API_KEY"),
    "huggingface": _Kind("Model, a directory or a name on the hub", "Qwen/Qwen3-0.6B"),
    "dspy.module": _Kind("Program", "program.py:make"),
    "langgraph": _Kind("Graph", "graph.py:make"),
    "mcp": _Kind("Command of the server", "{python} server.py", argv=True),
}


def init(
    provider: Annotated[str | None, typer.Option("--provider", metavar="P", help=f"One of {', '.join(_KINDS)}.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="TEXT", help="Its address, command, function or model.")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FILE", help="Your examples. Default: a sample is written.")] = None,
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where to write.")] = Path("."),
    name: Annotated[str, typer.Option("--name", metavar="FILE", help="The configuration.")] = "atlas.yaml",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write a commented configuration and a sample of data, and say what to type next. Asks in a terminal, unless told by flags."""
    import difflib
    import shlex

    from gepa_atlas.errors import ConfigError

    if provider is None and sys.stdin.isatty() and sys.stdout.isatty():
        provider, agent, data = _ask(agent, data)
    provider = provider or "chat"
    if provider not in _KINDS:
        near = difflib.get_close_matches(provider, list(_KINDS), 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"init knows {', '.join(_KINDS)}"
        raise ConfigError(f"--provider {provider!r}: {hint}")
    kind = _KINDS[provider]
    if data is None and name == _SAMPLE:
        raise ConfigError(f"--name {name!r}: this is the file of the sample; choose another name, such as atlas.yaml")
    place = (directory / name).parent
    given = _agent(kind, agent or kind.example, place)
    written = _files(provider, kind, given, data and _seen_from(place, data), name)
    if agent and (directory / "agent.py").exists():  # it is the agent that was named, not a file in the way
        written.pop("agent.py", None)
    for file in written:
        if (directory / file).exists() and not force:
            raise ConfigError(f"{directory / file}: this file exists; choose another --dir or --name, or replace it with --force")
    _write(directory, written)
    for file in written:
        typer.echo(f"{directory / file}: written")
    if kind.key:
        typer.echo(f"put {kind.key}=... into .env, or export it")
    typer.echo(f"next: gepa-atlas check {shlex.quote(str(directory / name))}")


def _ask(agent: str | None, data: str | None) -> tuple[str, str, str | None]:
    names = list(_KINDS)
    for number, known in enumerate(names, 1):
        typer.echo(f"{number:3} {known}")
    answer = typer.prompt("What is your agent? Number or name", default="chat")
    provider = names[int(answer) - 1] if answer.isdigit() and 0 < int(answer) <= len(names) else answer
    if provider in _KINDS and agent is None:
        agent = typer.prompt(_KINDS[provider].asks, default=_KINDS[provider].example)
    if data is None:
        data = typer.prompt("Your examples, a file with question and answer (empty: a sample)", default="", show_default=False) or None
    return provider, agent or "", data


def _files(provider: str, kind: _Kind, agent: str | list[str], data: str | None, name: str) -> dict[str, str]:
    """What to write, by file name."""
    from gepa_atlas.texts import fill

    value = json.dumps(agent, ensure_ascii=False)
    block = fill(_template(f"{provider}.yaml"), {"value": value}).rstrip("\n")
    values = {"agent": block, "data": json.dumps(data or _SAMPLE, ensure_ascii=False), "name": name}
    written = {name: fill(_template("skeleton.yaml"), values)}
    if provider == "dspy.module":  # its texts are the instructions it has
        lines = written[name].splitlines(keepends=True)
        written[name] = "".join(line for line in lines if not line.startswith(("seed_prompts:", "  guidance:")))
    if data is None:
        written[_SAMPLE] = _sample()
    if kind.sample and agent in (kind.example, kind.example.split()):
        written["agent.py"] = _template(f"{kind.sample}.txt")
    return written


def _arguments(command: str) -> list[str]:
    """The list that a command line stands for."""
    import shlex

    from gepa_atlas.errors import ConfigError

    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--agent {command!r}: cannot be split into arguments ({error}); close the quotation") from None
    if not argv:
        raise ConfigError(f"--agent {command!r}: holds no program; write the command of your agent")
    return argv


def _agent(kind: _Kind, agent: str, place: Path) -> str | list[str]:
    """What was typed, with the files in it named from the directory of the configuration."""
    if kind.argv:
        return [_seen_from(place, item) for item in _arguments(agent)]
    file, colon, name = agent.rpartition(".py:")
    return _seen_from(place, f"{file}.py") + f":{name}" if colon else agent


def _seen_from(place: Path, file: str) -> str:
    """A file as a configuration in `place` has to name it. What is no file from here, or is one from there, stays as it was typed."""
    import os

    if (place / file).is_file() or not Path(file).is_file():
        return file
    return Path(os.path.relpath(file, place)).as_posix()


def _template(name: str) -> str:
    return (files("gepa_atlas.cli") / "templates" / name).read_text("utf-8")


def _sample() -> str:
    """Messages with an order number and another number, in three splits: replace them by your own."""
    asks = ("I paid {n} euros for order {o}, where is it?", "Order {o} came with {n} parts too few.", "It is {n} days late: {o}. Help!")
    rows = []
    for i in range(90):
        order = f"{'QWERTZUIOP'[i % 10]}{'ASDFGHJKL'[i % 9]}-{10_000 + 7_919 * i % 90_000}"
        text = asks[i % 3].replace("{n}", str(3 + i % 37)).replace("{o}", order)
        split = ("train", "train", "val", "test")[(i // 3) % 4]
        rows.append({"id": f"sample-{i:02}", "question": text, "answer": order, "split": split})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(directory: Path, written: dict[str, str]) -> None:
    from gepa_atlas.store.exports import atomic_write, refused

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(directory, error) from None
    for file, text in written.items():
        atomic_write(directory / file, text)
