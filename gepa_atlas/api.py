"""The Python door: `gepa_atlas.optimize(agent, examples)`, and `lesson` for those who bring their own loop (docs/python.md).

It is the command line's own path: what is given is written down as a configuration, so every key of docs/configuration.md can be given by
name, and what is checked, recorded and reported is the same.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gepa_atlas.connectors.loading import named
from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.types import Attempt, Candidate, Demo, Example, Guidance, Lesson, Reward, Verdict, digest

Texts = Mapping[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Optimized:
    """What a run found. `document` is optimized_prompts.json; `best_candidate` is the evolved prompt when it ships, else the seed."""

    best_candidate: dict[str, str]
    demonstrations: tuple[Demo, ...]
    shipped: bool
    verdict: Verdict
    document: dict[str, Any] = field(repr=False)
    lessons: tuple[Lesson, ...] = field(repr=False)
    directory: Path | None = None  # None: the run was kept in a temporary directory

    def __str__(self) -> str:
        return str(self.document["verdict"]["sentence"])


def optimize(
    agent: Callable[..., Any] | Mapping[str, Any] | str,
    examples: Iterable[Mapping[str, Any] | Example] | Mapping[str, Any] | str | Path,
    *,
    judges: Sequence[str | Mapping[str, Any] | Callable[..., Any]] = ("exact",),
    seed_prompt: str | Texts = "",
    run_dir: str | Path | None = None,
    **settings: Any,
) -> Optimized:
    """Evolve guidance for an agent, test it on held-out examples, and say whether to use it.

    agent: a function of (question, guidance) or whatever `python.callable` takes, the name of one ("file.py:function"), or
    {"provider": ..., "params": ...}. examples: a list of mappings or Examples, the path of a data file, or a `data:` block.
    judges: as under `rim: {judges: ...}`; a function (output, example) -> score in [0, 1] is one too. seed_prompt: the text to start
    from, or one for each component. run_dir: kept there and gone on with when it exists; without it nothing stays on disk.
    settings: any other key of a configuration, such as max_metric_calls=300 or reflection_lm="openai/gpt-5-mini".

    Raises the errors of `gepa_atlas.errors`, or Interrupted (a KeyboardInterrupt).
    """
    if isinstance(judges, str | Mapping) or callable(judges):
        raise ConfigError(f"judges: takes a list, and {judges!r:.80} is one judge; write judges=[...] around it")
    place = tempfile.TemporaryDirectory(prefix="gepa_atlas_") if run_dir is None else nullcontext(str(run_dir))
    with place as name:
        directory = Path(name)
        tree = {
            **settings,
            "agents": {**settings.get("agents", {}), "student": _agent(agent)},
            "data": _data(examples, directory),
            "rim": {**settings.get("rim", {}), "judges": [_judge(at, judge) for at, judge in enumerate(judges)]},
            "run_dir": str(directory),
        }
        if seed_prompt:
            tree["seed_prompts"] = {"guidance": seed_prompt} if isinstance(seed_prompt, str) else dict(seed_prompt)
        return outside_of_a_loop(lambda: _run(tree, directory, kept=run_dir is not None))


def lesson(candidate: Candidate, example: Example, output: str, score: float, *, baseline: float = 0.0, sample: int = 0) -> Lesson:
    """What an own loop tells `Evolution` of one cell: what the agent answered with this candidate, and its score in [0, 1].

    `baseline` is its score without guidance, the same for every candidate; it costs nothing here and may stay 0.
    """
    guidance = Guidance("\n\n".join(text for _, text in candidate.texts), candidate.demos, candidate.settings)
    return Lesson(
        example,
        candidate.id,
        sample,
        "own loop",
        Attempt(""),
        guidance,
        Attempt(output),
        Reward(baseline),
        Reward(score),
        requests=(digest([candidate.id, example.id, sample], 16),),
    )


def _run(tree: dict[str, Any], directory: Path, *, kept: bool) -> Optimized:
    from gepa_atlas.build import build_experiment, notes
    from gepa_atlas.cli.session import export, remembered, to_record
    from gepa_atlas.config import from_tree
    from gepa_atlas.loop import Silent
    from gepa_atlas.observe.observing import observing
    from gepa_atlas.report.prompts import optimized_prompts
    from gepa_atlas.secrets import watch_environment

    watch_environment()
    loaded = from_tree(tree, Path.cwd() / "optimize()")
    with observing(loaded.config.observe, Silent(), warnings.warn) as live:
        experiment = build_experiment(loaded, on_call=live.on_call)
        result = remembered(loaded, experiment, directory, live, warnings.warn)
    record = to_record(result, notes(loaded, experiment.dataset))
    if kept:
        export(record, result, loaded)
    return Optimized(
        dict(record.winner.texts),
        record.winner.demos,
        record.shipped,
        result.verdict,
        optimized_prompts(record),
        result.lessons,
        directory if kept else None,
    )


def _agent(agent: Callable[..., Any] | Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(agent, Mapping):
        return dict(agent)
    return {"provider": "python.callable", "params": {"callable": agent if isinstance(agent, str) else named(agent, "agent")}}


def _judge(at: int, judge: str | Mapping[str, Any] | Callable[..., Any]) -> str | dict[str, Any]:
    if isinstance(judge, str):
        return judge
    if isinstance(judge, Mapping):
        return dict(judge)
    reference = named(judge, f"judge_{at}")
    name = judge.__name__ if inspect.isroutine(judge) else type(judge).__name__
    return {"type": "python", "name": f"judge_{at}" if name == "<lambda>" else name, "function": reference}


def _data(examples: Any, directory: Path) -> dict[str, Any]:
    """The `data:` block. A list becomes a file of the run, so that the run can be read again without the program that made it."""
    if isinstance(examples, Mapping):
        return dict(examples)
    if isinstance(examples, str | Path):
        return {"path": str(Path(examples).absolute())}
    if not isinstance(examples, Iterable):
        raise DataError(
            f"examples: a {type(examples).__name__} holds none; give a list of mappings or Examples, a path, or a `data:` block"
        )
    rows = [example.to_json() if isinstance(example, Example) else example for example in examples]
    try:
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"examples: one of them is not JSON ({error}); give mappings of text, numbers and lists, or Examples") from None
    text = "".join(f"{line}\n" for line in lines)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"examples-{digest(text, 8)}.jsonl"  # other examples never replace those of an earlier run
    path.write_text(text, encoding="utf-8")
    return {"path": str(path.absolute())}


def outside_of_a_loop(work: Callable[[], T]) -> T:
    """Run `work`, which has an event loop of its own: in another thread where one is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, work).result()


__all__ = ["Optimized", "lesson", "optimize"]
