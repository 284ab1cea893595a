"""The commands `optimize` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gepa_atlas.cli.limits import MaxMinutes, MaxTokens, MaxUsd

if TYPE_CHECKING:
    from gepa_atlas.config import Loaded

EPILOG = """
Examples:

  gepa-atlas optimize configs/examples/quickstart.yaml

  gepa-atlas optimize my.yaml --set agents.student.params.timeout=20 --max-metric-calls 300

  gepa-atlas optimize my.yaml --run-dir runs/my     (again: resumes; a finished run makes no call)

  gepa-atlas optimize my.yaml --run-dir runs/next --warm-start runs/my

Environment: STUDENT_MODEL, TEACHER_MODEL, REFLECTION_LM, TRAINSET and VALSET override the configuration; .env is read first and
overrides nothing that is set.
"""

CHECK_EPILOG = """
Examples:

  gepa-atlas check configs/examples/quickstart.yaml

  gepa-atlas check my.yaml --sample 0               (no call is made)

  gepa-atlas check my.yaml --sample 20 --max-usd 2 --json

green: it works. yellow: it works, and there is something to know. red: it cannot do what it is for; exit code 2.
"""

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file of the run.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as seed=7 or data.columns.question=q; repeatable."),
]
WarmStart = Annotated[
    str | None,
    typer.Option("--warm-start", metavar="RUN|auto", help="Start from what RUN learned, or (auto) from the most similar runs in memory."),
]
RunDir = Annotated[str | None, typer.Option("--run-dir", metavar="DIR", help="Where the run is kept. Default: runs/<name of CONFIG>.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def optimize(
    config: Config,
    set_: Set = None,
    run_dir: RunDir = None,
    max_metric_calls: Annotated[int | None, typer.Option(metavar="N", help="Hard limit on runs of the student agent.")] = None,
    max_usd: MaxUsd = None,
    max_tokens: MaxTokens = None,
    max_minutes: MaxMinutes = None,
    warm_start: WarmStart = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; the closing lines only.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print events, one JSON object a line, and nothing else.")] = False,
) -> int:
    """Evolve the prompts of CONFIG, test the winner on held-out examples and write optimized_prompts.json."""
    flags = {
        "max_metric_calls": max_metric_calls,
        "budget.dollars": max_usd,
        "budget.tokens": max_tokens,
        "budget.seconds": None if max_minutes is None else max_minutes * 60,
    }
    loaded = read_config(config, set_, [f"{key}={value}" for key, value in flags.items() if value is not None], run_dir)

    from gepa_atlas.cli.session import run_search

    return run_search(loaded, "json" if json_ else "quiet" if quiet else "auto", warm_start)


def check(
    config: Config,
    set_: Set = None,
    run_dir: RunDir = None,
    sample: Annotated[int, typer.Option("--sample", metavar="N", min=0, help="Train examples to try; 0 makes no call.")] = 4,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask again what an earlier check has asked.")] = False,
    max_usd: MaxUsd = None,
    max_tokens: MaxTokens = None,
    max_minutes: MaxMinutes = None,
    json_: Json = False,
) -> int:
    """Look at everything before a search is paid for: keys, data, endpoints, judges, noise, headroom; then say what the run will take.

    Answers are kept in RUN_DIR/check, so that a repeated check pays only for what is new.
    """
    seconds = None if max_minutes is None else max_minutes * 60
    limits = {"budget.dollars": max_usd, "budget.tokens": max_tokens, "budget.seconds": seconds}
    from gepa_atlas.cli.check import check as run
    from gepa_atlas.cli.check import unreadable
    from gepa_atlas.errors import UserError

    try:
        loaded = read_config(config, set_, [f"{key}={value}" for key, value in limits.items() if value is not None], run_dir)
    except UserError as error:
        unreadable(error, as_json=json_)
        raise
    return run(loaded, sample=sample, fresh=fresh, dollars=max_usd, seconds=seconds, as_json=json_)


def read_config(path: Path, sets: list[str] | None, flags: list[str], run_dir: str | None) -> Loaded:
    from gepa_atlas.config import load_config
    from gepa_atlas.dotenv import load_env_files
    from gepa_atlas.secrets import watch_environment

    load_env_files(path)
    watch_environment()
    overrides = [*(sets or ()), *flags]
    if run_dir is not None:
        import json

        overrides.append(f"run_dir={json.dumps(run_dir)}")
    return load_config(path, overrides)
