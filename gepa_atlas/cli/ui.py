"""`gepa-atlas ui`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """
Examples:

  gepa-atlas ui

  gepa-atlas ui --runs experiments --port 8080

The page is on 127.0.0.1 only and asks for the token in the address that is printed. From another machine: ssh -L 8765:127.0.0.1:8765 HOST
"""


def ui(
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where the runs are.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="On 127.0.0.1; 0 is any free port.")] = 8765,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", envvar="GEPA_ATLAS_UI_TOKEN", help="What to ask for. Default: a new one at every start."),
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Ask for none: every user of this machine can read the runs.")] = False,
) -> int:
    """Show the runs below DIR in the browser: the list, a run while it goes on in another process, the report of a finished one."""
    import contextlib
    import re
    import secrets

    from gepa_atlas.errors import ConfigError
    from gepa_atlas.secrets import remember, watch_environment
    from gepa_atlas.ui.server import HOST, open_port, serve

    if not runs.is_dir():
        raise ConfigError(f"--runs {runs}: there is no such directory; give the one that holds your runs")
    if token is not None and no_token:
        raise ConfigError("--token and --no-token exclude each other; keep one (GEPA_ATLAS_UI_TOKEN counts as --token)")
    if token is not None and not re.fullmatch(r"[A-Za-z0-9._~-]{8,200}", token):
        raise ConfigError("--token: give 8 to 200 letters, digits, dots, tildes, dashes or underscores")
    watch_environment()
    asked = None if no_token else token or secrets.token_urlsafe(24)
    if asked is not None:
        remember(asked)
    with open_port(port) as listener:
        address = f"http://{HOST}:{listener.getsockname()[1]}/"
        typer.echo(f"runs below {runs}: {address}" + (f"?token={asked}" if asked else "") + "  (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
            serve(runs, listener, asked)
    return 0
