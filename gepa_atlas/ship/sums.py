"""A bundle is a folder whose SHA256SUMS names every file in it; its id is the hash of that list."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from gepa_atlas.errors import BundleDamaged
from gepa_atlas.handoff.workspace import sha256_file
from gepa_atlas.store.exports import sync
from gepa_atlas.types import canonical

SUMS, DECISION = "SHA256SUMS", "decision.json"
ID = re.compile(r"[0-9a-f]{32}")
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._/+-]+)")  # as `sha256sum` writes names that need no escape


def write_sums(folder: Path) -> str:
    """Write SHA256SUMS over every file below `folder`; returns the bundle's id."""
    lines = []
    for file in files_of(folder):
        line = f"{sha256_file(folder / file)}  {file}"
        if not _LINE.fullmatch(line):
            raise BundleDamaged(f"{folder}: {file!r} is no name for a file of a bundle; use letters, digits and . _ + - only")
        lines.append(line + "\n")
    (folder / SUMS).write_text("".join(lines), "ascii")
    return bundle_id(folder)


def files_of(folder: Path) -> list[str]:
    """Every file below `folder` but SHA256SUMS, as relative paths. Raises BundleDamaged for what is neither file nor folder."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleDamaged(f"{folder}: {name} is neither a file nor a folder; a bundle holds plain files only")
        if path.is_file() and name != SUMS:
            found.append(name)
    return found


def bundle_id(folder: Path) -> str:
    return hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()[:32]


def verify(folder: Path) -> dict[str, str]:
    """{relative path: sha256} of a bundle whose files are all there, unchanged, and no others; else BundleDamaged."""
    if not (folder / SUMS).is_file():
        raise BundleDamaged(f"{folder}: there is no {SUMS}, so this is no bundle; build one with `gepa-atlas grpo package`")
    named: dict[str, str] = {}
    for line in (folder / SUMS).read_text("utf-8", "replace").splitlines():
        found = _LINE.fullmatch(line)
        if found is None or ".." in found[2].split("/") or found[2].startswith("/"):
            raise BundleDamaged(f"{folder}: {SUMS} has a line that is no checksum of a file in the bundle: {line[:80]!r}")
        named[found[2]] = found[1]
    there = set(files_of(folder))
    if odd := sorted(there ^ named.keys()):
        what = "is not in its SHA256SUMS" if odd[0] in there else "is missing"
        raise BundleDamaged(f"{folder}: {odd[0]} {what}; take another copy of the bundle, or roll back")
    for name, expected in named.items():
        if sha256_file(folder / name) != expected:
            raise BundleDamaged(f"{folder}: {name} is not what SHA256SUMS says; take another copy of the bundle, or roll back")
    return named


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a bundle or registry. Raises BundleDamaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
        canonical(found)  # refuses NaN and infinity, which JSON does not have
    except (OSError, ValueError, RecursionError) as error:
        raise BundleDamaged(f"{path}: cannot be read ({error}); restore it from a copy") from None
    if not isinstance(found, dict):
        raise BundleDamaged(f"{path}: not a JSON object; restore it from a copy")
    return found


def copy_bundle(source: Path, target: Path) -> None:
    """Copy a bundle so that `target` is there whole or not at all, also after a power cut; its files are read-only from then on."""
    unfinished = target.with_name(f".incoming-{target.name}-{os.getpid()}")
    try:
        for name in [*files_of(source), SUMS]:
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, unfinished / name)
            (unfinished / name).chmod(0o444)
        put_in_place(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def put_in_place(unfinished: Path, target: Path) -> None:
    """Sync everything below `unfinished` to the disk and rename it to `target`, which is absent or an empty folder."""
    for path in sorted(unfinished.rglob("*")):
        sync(path)
    sync(unfinished)
    unfinished.rename(target)
    sync(target.parent)
