"""`gepa-atlas`: the command line. Light to import: what a command needs is imported inside it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from gepa_atlas.cli import evaluate, grpo, init, migrate, optimize, registry, rim, runs, skills, sweep, traces, ui
from gepa_atlas.errors import AtlasError

# typer's own base of usage errors, wherever the installed version keeps click.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]

_EPILOG = """
Examples:

  gepa-atlas check configs/examples/toyworld.yaml

  gepa-atlas optimize configs/examples/toyworld.yaml --set seed=7

  gepa-atlas runs show runs/toyworld

Exit codes: 0 done; 2 wrong input; 3 the run directory is in use; 4 run.db is damaged, or a sweep finished no combination;
74 the disk refused a write; 75 an endpoint kept failing; 130 interrupted. A run that ended with 74, 75 or 130 is resumed
by the same command.
"""


class _Root(TyperGroup):
    """Typer would turn Ctrl-C into an exit code without a word."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        return _or_abort(super().make_context, *args, **extra)

    def invoke(self, ctx: Any) -> Any:
        return _or_abort(super().invoke, ctx)


def _or_abort(work: Callable[..., Any], *args: Any, **extra: Any) -> Any:
    try:
        return work(*args, **extra)
    except KeyboardInterrupt:
        raise typer.Abort from None


app = typer.Typer(
    cls=_Root,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Evolve the prompts that make an agent in production better, with evidence.",
    epilog=_EPILOG,
)
app.command("optimize", epilog=optimize.EPILOG)(optimize.optimize)
app.command("check", epilog=optimize.CHECK_EPILOG)(optimize.check)
app.command("init", epilog=init.EPILOG)(init.init)
app.command("migrate", epilog=migrate.EPILOG)(migrate.migrate)
app.command("report", epilog=runs.REPORT_EPILOG)(runs.report)
app.command("export", epilog=runs.EXPORT_EPILOG)(runs.export)
app.command("compare", epilog=runs.COMPARE_EPILOG)(runs.compare)
app.command("why", epilog=runs.WHY_EPILOG)(runs.why)
app.command("ui", epilog=ui.EPILOG)(ui.ui)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(runs.app, name="runs")
app.add_typer(rim.app, name="rim")
app.add_typer(traces.app, name="traces")
app.add_typer(skills.app, name="skills")
app.add_typer(grpo.app, name="grpo")
app.add_typer(registry.app, name="registry")
app.add_typer(sweep.app, name="sweep")


@app.command("version")
def version() -> None:
    """Print the version of gepa_atlas."""
    from gepa_atlas import __version__

    typer.echo(__version__)


def main(arguments: Sequence[str] | None = None) -> None:
    """The one border: whatever a user can cause is a line on stderr and an exit code, never a traceback."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="gepa-atlas", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except AtlasError as error:
        return _fail(str(error), error.exit_code)
    except _UsageError as error:
        message = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        return _fail(f"{' '.join(message.split())} (see gepa-atlas --help)", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader (`| head`) went away: nothing is wrong, and Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1  # as typer does when it notices first
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 74 if full else 2)


def _fail(message: str, code: int) -> int:
    from gepa_atlas.secrets import scrub

    # One line, whatever a server or a user's exception said.
    print(f"error: {' '.join(scrub(message).split())}", file=sys.stderr)
    return code
