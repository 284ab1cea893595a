"""The bank of instruction fragments, by kind, read from fragments.md."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

KINDS = ("role", "task", "format", "constraint")


@cache
def bank() -> dict[str, tuple[str, ...]]:
    """Fragments by kind, in the order of the file."""
    found: dict[str, list[str]] = {}
    kind = ""
    for line in (files("gepa_atlas.propose") / "fragments.md").read_text("utf-8").splitlines():
        if line.startswith("# "):
            kind = line[2:].strip()
        elif line.startswith("- "):
            found.setdefault(kind, []).append(line[2:].strip())
    return {name: tuple(lines) for name, lines in found.items()}


@cache
def kind_of() -> dict[str, str]:
    """The kind of each fragment of the bank."""
    return {line: kind for kind, lines in bank().items() for line in lines}
