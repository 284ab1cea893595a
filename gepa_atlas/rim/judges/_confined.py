"""Started by the code judge in a fresh interpreter: sets limits on this process, then runs the program in its place."""

import contextlib
import json
import os
import resource
import sys


def main() -> None:
    memory, seconds, size = json.loads(sys.argv[1])
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))
    with contextlib.suppress(AttributeError, OSError):
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)  # type: ignore[attr-defined, unused-ignore]  # Python 3.12, where allowed
    os.execv(sys.executable, [sys.executable, "-I", sys.argv[2]])


main()
