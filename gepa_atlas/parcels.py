"""Files that travel to a worker on another disk: those that a configuration names, packed here and laid out there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gepa_atlas.connectors.loading import package_of
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
    """Every file that one of the texts names, from `base` or from `beside` it; with one that is code, the Python files beside it, or all of
    the package that it is of: it may import them. Raises ConfigError for one that cannot travel."""
    found: dict[str, bytes] = {}
    for text in texts:
        for name in _names(text):
            for path in {base / name, base / beside / name}:
                if path.is_file():
                    _add(found, path, name, base)
    return tuple(sorted(found.items()))


def _names(text: str) -> tuple[str, ...]:
    """The files that a text may name: itself, FILE.py:NAME, or MODULE:NAME."""
    if len(text) > 400 or "\n" in text or "\0" in text or not text:
        return ()
    source, _, name = text.rpartition(":")
    if source.endswith(".py"):
        return (source,)
    if source.replace(".", "").isidentifier() and name:
        module = source.replace(".", "/")
        return (text, f"{module}.py", f"{module}/__init__.py")
    return (text,)


def _add(found: dict[str, bytes], path: Path, name: str, base: Path) -> None:
    if Path(name).is_absolute():
        raise ConfigError(f"{name}: an absolute path does not exist on other machines; write it relative to the configuration")
    for file in sorted(_code(path)) if path.suffix == ".py" else [path]:
        if file.stat().st_size > _MAX_FILE:
            raise ConfigError(f"{file}: larger than {_MAX_FILE} bytes, too large to send to workers; share the disk instead")
        found[os.path.relpath(file, base)] = file.read_bytes()


def _code(path: Path) -> Iterable[Path]:
    """The Python files that this one may import: those beside it, or the whole package that it is of."""
    package = package_of(Path(os.path.abspath(path)))
    return path.parent.glob("*.py") if package is None else package.rglob("*.py")


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
