"""An adapter's files without torch: what ships, what must not, whether its numbers are finite, and the line that serves it.

The safetensors format is read here because numpy has no bfloat16 and the gate needs no more than the bits: an 8-byte little-endian
header length, a JSON header {name: {dtype, shape, data_offsets}}, then the numbers. A damaged or hostile file is a named problem.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gepa_atlas.errors import ConfigError

CARD = "atlas.json"  # {kind, base, revision, base_sha256}: what the training stage says about the adapter
MAX_HEADER = 100_000_000
_CHUNK = 8_000_000  # numbers looked at at once
# Files that ship beside the weights: configuration, tokenizer, chat template. None of them is code.
SHIPPED = frozenset(
    {
        CARD, "adapter_config.json", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
        "model.safetensors.index.json",
    }
)  # fmt: skip
# dtype -> (numpy type of its bits, mask whose bits are all set in infinity and NaN only). None: has neither.
_BITS: dict[str, tuple[str, int | None]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000), "F32": ("<u4", 0x7F80_0000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C), "F8_E4M3": ("u1", 0x7F),
    "I64": ("<i8", None), "I32": ("<i4", None), "I16": ("<i2", None), "I8": ("i1", None), "U64": ("<u8", None), "U32": ("<u4", None),
    "U16": ("<u2", None), "U8": ("u1", None), "BOOL": ("u1", None),
}  # fmt: skip
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vllm takes as --max-lora-rank


class Unreadable(Exception):
    """A weights file that is not what it says; the message is a problem of the gate, never shown alone."""


def weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def shipped_files(folder: Path) -> list[Path]:
    """The files of an adapter that belong into a bundle, sorted by name."""
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.is_symlink() and (f.name in SHIPPED or f.suffix == ".safetensors"))


def card(folder: Path) -> dict[str, Any]:
    """What training says about the adapter; {} where it says nothing that can be read."""
    try:
        found = json.loads((folder / CARD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def problems(folder: Path, base_sha256: str | None, max_mb: float) -> list[str]:
    """Every reason why this adapter must not ship, in plain words; empty when it may. `base_sha256` None: no base to hold it against."""
    if not folder.is_dir():
        return [f"there is no adapter in {folder.name}/"]
    found = []
    foreign = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if not _may_ship(f, folder))
    if foreign:
        found.append(f"files that are neither safetensors nor its configuration: {', '.join(foreign[:5])}")
    if not weights(folder):
        found.append("there is no safetensors file")
    megabytes = sum(f.stat().st_size for f in shipped_files(folder)) / 1e6
    if megabytes > max_mb:
        found.append(f"{megabytes:.0f} MB is more than max_adapter_mb = {max_mb:g}")
    found += _base(card(folder), base_sha256)
    for file in weights(folder):
        try:
            broken = [name for name, finite in tensors(file) if not finite]
        except Unreadable as error:
            found.append(str(error))
            continue
        if broken:
            found.append(f"{file.name}: {len(broken)} tensors hold NaN or infinity, first {broken[0]}")
    return found


def _may_ship(file: Path, folder: Path) -> bool:
    return file.parent == folder and file.is_file() and not file.is_symlink() and (file.name in SHIPPED or file.suffix == ".safetensors")


def _base(said: dict[str, Any], base_sha256: str | None) -> list[str]:
    trained_on = said.get("base_sha256")
    if not isinstance(trained_on, str):
        return [f"{CARD} does not say which base it was trained on (base_sha256)"]
    if base_sha256 is not None and trained_on != base_sha256:
        return [f"it was trained on a base with hash {trained_on[:12]}, and the evaluated base has {base_sha256[:12]}"]
    return []


def tensors(file: Path) -> Iterator[tuple[str, bool]]:
    """(name, whether every number is finite) of each tensor. Raises Unreadable for anything that is not a whole safetensors file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
            raise Unreadable(f"{file.name}: no safetensors header")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            raise Unreadable(f"{file.name}: its header is not JSON") from None
    if not isinstance(header, dict):
        raise Unreadable(f"{file.name}: its header is not an object")
    for name, entry in sorted(header.items()):
        if name != "__metadata__":
            kind, mask, start, count = _place(file, name, entry, size - 8 - length)
            yield name, mask is None or _finite(file, kind, mask, 8 + length + start, count)
    if len(header.keys() - {"__metadata__"}) == 0:
        raise Unreadable(f"{file.name}: it holds no tensor")


def _place(file: Path, name: str, entry: Any, room: int) -> tuple[np.dtype[Any], int | None, int, int]:
    """(type of the bits, mask, offset in bytes, numbers) of one header entry, checked against the file."""
    try:
        bits, mask = _BITS[entry["dtype"]]
        shape, (start, end) = entry["shape"], entry["data_offsets"]
        kind = np.dtype(bits)
        count = math.prod(shape)
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
        right = whole and start <= end <= room and end - start == count * kind.itemsize
    except (KeyError, TypeError, ValueError):
        right = False
    if not right:
        raise Unreadable(f"{file.name}: the entry of {name!r} does not fit the file")
    return kind, mask, start, count


def _finite(file: Path, kind: np.dtype[Any], mask: int, start: int, count: int) -> bool:
    """No number with every bit of the mask set."""
    for first in range(0, count, _CHUNK):
        bits = np.fromfile(file, kind, min(_CHUNK, count - first), offset=start + first * kind.itemsize)
        if ((bits & kind.type(mask)) == mask).any():
            return False
    return True


def rank(folder: Path) -> int | None:
    """The largest rank in adapter_config.json; None for whole weights. Raises ConfigError when it cannot be read."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
        return max([int(config["r"]), *(int(v) for v in (config.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: the rank of the adapter cannot be read ({error}); train again or repair the file") from None


def serve_line(operation: str, folder: Path, base: str, shown: Path | None = None) -> str:
    """The command that serves base and adapter with vllm; `shown` is the path to print, where it is not `folder`."""
    found, path = rank(folder), shown or folder
    if found is None:
        return shlex.join(["vllm", "serve", str(path), "--served-model-name", operation])
    room = next((r for r in _RANKS if r >= found), found)
    return shlex.join(["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{operation}={path}", "--max-lora-rank", str(room)])
