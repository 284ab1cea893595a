"""Versions of what results depend on, without importing any of it."""

from __future__ import annotations

import platform
from importlib import metadata

RECORDED = ("torch", "trl", "transformers", "peft", "accelerate", "datasets", "vllm", "numpy")


def installed(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    from gepa_atlas import __version__

    found = {"gepa_atlas": __version__, "python": platform.python_version()}
    return found | {name: version for name in RECORDED if (version := installed(name)) is not None}
