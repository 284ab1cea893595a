"""Files derived from a run, written whole or not at all, without secrets."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gepa_atlas.errors import AtlasError, ConfigError, StoreFull
from gepa_atlas.secrets import scrub, scrub_json

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


def atomic_write(path: str | Path, content: str | bytes) -> None:
    """Replace `path` by `content`: a reader sees the old file or the new one, also after a power cut.

    Text is scrubbed and written as UTF-8, a lone surrogate as its JSON escape. Raises StoreFull when the disk
    refuses, ConfigError when the path cannot be written. The file's mode is 0600.
    """
    _replace(Path(path), [_encoded(content) if isinstance(content, str) else content])


def _encoded(text: str) -> bytes:
    return scrub(text).encode("utf-8", "backslashreplace")


def _replace(target: Path, pieces: Iterable[bytes]) -> None:
    """Write the pieces one after the other, and put them in the place of `target` when all are safe."""
    with replacing(target) as temporary, temporary.open("wb") as file:
        file.writelines(pieces)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its place, safe on the disk, when the block ends well. Errors as in `atomic_write`."""
    temporary: Path | None = None
    try:
        if target.exists() and not target.is_file():
            # Replacing a device such as /dev/null by a file would break it for everybody.
            raise ConfigError(f"{target}: cannot be written (it is not a regular file); choose the path of a file")
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        temporary = None
        sync(target.parent)
    except OSError as error:
        raise refused(target, error) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    atomic_write(path, json.dumps(scrub_json(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """One JSON document a line; `rows` are taken one at a time, so they may be more than memory holds."""
    _replace(Path(path), (_encoded(json.dumps(scrub_json(row), ensure_ascii=False, allow_nan=False) + "\n") for row in rows))


def refused(path: Path, error: OSError) -> AtlasError:
    """What a user should know of a file system's refusal."""
    if error.errno in _FULL:
        return StoreFull(f"{path}: the disk refused a write ({error.strerror}); make room and run again")
    return ConfigError(f"{path}: cannot be written ({error.strerror or error}); choose a path you may write to")


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
