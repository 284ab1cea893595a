"""Files that travel to a worker on another disk: those that a configuration names, packed here and laid out there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError

Files = tuple[tuple[str, bytes], ...]  # (path relative to the configuration, content)

_MAX_FILE = 50_000_000  # bytes; larger files do not travel


def strings(value: Any) -> list[str]:
    """Every text in a tree."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in strings(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []


def pack(texts: Iterable[str], base: Path, beside: str = ".") -> Files:
    """Every file that one of the texts names, from `base` or from `beside` it, and the Python files beside one that is code: it may
    import them. Raises ConfigError for one that cannot travel."""
    found: dict[str, bytes] = {}
    for text in texts:
        name = text.split(":")[0] if ".py:" in text else text
        if not name or len(name) > 400 or "\n" in name or "\0" in name:
            continue
        for path in {base / name, base / beside / name}:
            if path.is_file():
                _add(found, path, name, base)
    return tuple(sorted(found.items()))


def _add(found: dict[str, bytes], path: Path, name: str, base: Path) -> None:
    if Path(name).is_absolute():
        raise ConfigError(f"{name}: an absolute path does not exist on other machines; write it relative to the configuration")
    for file in sorted(path.parent.glob("*.py")) if path.suffix == ".py" else [path]:
        if file.stat().st_size > _MAX_FILE:
            raise ConfigError(f"{file}: larger than {_MAX_FILE} bytes, too large to send to workers; share the disk instead")
        found[os.path.relpath(file, base)] = file.read_bytes()


def unpack(files: Files, place: Path) -> Path:
    """Lay the files out below `place`; returns the directory that their paths start at."""
    depth = max(name.split(os.sep).count("..") for name, _ in files)
    base = place.joinpath(*(["d"] * depth))
    base.mkdir(parents=True)
    for name, content in files:
        path = Path(os.path.normpath(base / name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return base
