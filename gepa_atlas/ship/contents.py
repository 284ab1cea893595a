"""What a training run would ship: its adapter and its prompt, found from the records of its stages, as bytes and hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gepa_atlas.errors import DataError
from gepa_atlas.handoff.workspace import Workspace, sha256_file
from gepa_atlas.secrets import scrub
from gepa_atlas.ship.adapter import shipped_files
from gepa_atlas.ship.sums import read_json

TRAINED = ("distill", "train", "preference", "sft")  # the last of them that was evaluated made the adapter


@dataclass(frozen=True)
class Contents:
    """`texts` are the files that are written (relative path -> bytes), `adapter` the folder that is copied, or None."""

    adapter: Path | None
    texts: Mapping[str, bytes]

    def sha256s(self) -> dict[str, str]:
        """relative path in the bundle -> hash, of everything that changes what is served."""
        found = {name: hashlib.sha256(data).hexdigest() for name, data in self.texts.items()}
        if self.adapter is not None and self.adapter.is_dir():
            found |= {f"adapter/{file.name}": sha256_file(file) for file in shipped_files(self.adapter)}
        return dict(sorted(found.items()))


def of_run(work: Workspace) -> Contents:
    """Raises ConfigError when a stage is not done, DataError when the adapter is not the one that was evaluated."""
    adapter, handoff = evaluated_adapter(work), work.folder_of("export")
    row = chosen_prompt(handoff / "prompts.jsonl", str(manifest_of(work).get("choice", "best")))
    return Contents(adapter, prompt_files(row, served=adapter is None or not distilled(work)))


def manifest_of(work: Workspace) -> dict[str, Any]:
    """What the hand-off says about its prompt: {mode, choice, lineage, ...}; {} where it says nothing."""
    path = work.folder_of("export") / "manifest.json"
    said = read_json(path).get("prompt") if path.is_file() else None
    return said if isinstance(said, dict) else {}


def distilled(work: Workspace) -> bool:
    """Whether the weights were to learn what the prompt says, so that the adapter serves without it."""
    return manifest_of(work).get("mode") == "distil"


def evaluated_adapter(work: Workspace) -> Path | None:
    """The adapter that the stage `eval` read, unchanged since; None where it read none."""
    read = work.finished("eval").inputs
    for stage in TRAINED:
        hashes = {name: sha for name, sha in read.items() if name.startswith(f"{stage}/adapter/")}
        if hashes:
            folder = work.folder_of(stage)
            for name, sha in hashes.items():
                file = folder / name.removeprefix(f"{stage}/")
                if not file.is_file() or sha256_file(file) != sha:
                    raise DataError(f"{file}: not the file that was evaluated; run the stage `eval` again")
            return folder / "adapter"
    return None


def chosen_prompt(path: Path, role: str) -> dict[str, Any]:
    """The row of the prompt that was trained with: role best or seed. Raises DataError."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run the stage `export` again") from None
    found = [row for row in rows if isinstance(row, dict) and role in str(row.get("role")).split(" and ")]
    if not found or not isinstance(found[0].get("system"), str):
        raise DataError(f"{path}: no prompt has the role {role}; run the stage `export` again")
    return found[0]


def prompt_files(row: Mapping[str, Any], *, served: bool = True) -> dict[str, bytes]:
    """prompt.txt, the text to serve (empty where an adapter serves without one), prompt.json, where it comes from, and demos.json."""
    demos = json.loads(row.get("demos_json") or "[]")
    if scrub(str(row["system"])) != row["system"]:
        raise DataError("the evolved prompt holds what looks like a secret: take it out of the examples, optimize and export again")
    lineage = {
        name: row.get(name)
        for name in (
            "prompt_hash",
            "candidate_id",
            "parent_hashes",
            "origin",
            "generation",
            "texts",
            "val_delta",
            "val_delta_low",
            "val_tasks",
        )
    }
    settings = json.loads(row.get("settings_json") or "{}")
    return {
        "prompt.txt": (str(row["system"]) if served else "").encode("utf-8", "backslashreplace"),
        "prompt.json": pretty({**lineage, "settings": settings}),
        "demos.json": pretty(demos),
    }


def pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n").encode("utf-8", "backslashreplace")
