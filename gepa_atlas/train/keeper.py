"""`python -m gepa_atlas.train.keeper ARGV...`: runs a program in a process group of its own and ends that group with its own parent.

Its stdin is a pipe that the parent holds. When the parent ends, however it ends, the pipe closes and the group is told to stop, then
killed; nothing outside the group is touched. Exit code: the program's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

GRACE_SECONDS = 15.0


def keep(argv: Sequence[str]) -> int:
    """Run `argv` until it or the parent ends. 127: it could not be started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides
    try:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{argv[0]}: cannot be started ({error.strerror})", file=sys.stderr, flush=True)
        return 127
    threading.Thread(target=_end_with_parent, args=(child,), daemon=True).start()
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # what it left behind
    return code if code >= 0 else 128 - code


def _end_with_parent(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _signal_group(child.pid, signal.SIGTERM)
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
