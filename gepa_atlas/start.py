"""Where the command begins. It imports nothing heavy, so that Ctrl-C while the rest is being imported is one line too."""

import sys


def main() -> None:
    try:
        from gepa_atlas.cli import main as run

        run()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
