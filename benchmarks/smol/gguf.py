"""Reads a GGUF file: its metadata, and its tensors as float32. Only the three storage types that SmolLM2's Q4_1 file has.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A block of 32 weights is two bytes of scale and, in Q8_0, 32 signed
bytes; in Q4_1, two bytes of scale, two of offset, and 32 nibbles, low ones first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_F32, _Q4_1, _Q8_0 = 0, 3, 8
_BLOCK = {_Q4_1: 20, _Q8_0: 34}  # bytes of 32 weights


@dataclass
class _Reader:
    data: npt.NDArray[np.uint8]
    at: int = 0

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self) -> str:
        size = self.scalar("Q")
        self.at += size
        return bytes(self.data[self.at - size : self.at]).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            inner, count = self.scalar("I"), self.scalar("Q")
            return [self.value(inner) for _ in range(count)]
        return self.scalar(_SCALARS[kind])


@dataclass
class Gguf:
    """`metadata` by key; `tensor(name)` with the rows of a matrix as its outputs."""

    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    _where: dict[str, tuple[tuple[int, ...], int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        reader = _Reader(np.memmap(self.path, mode="r"))
        if bytes(reader.data[:4]) != b"GGUF":
            raise ValueError(f"{self.path} is no GGUF file")
        reader.at = 8
        tensors, keys = reader.scalar("Q"), reader.scalar("Q")
        for _ in range(keys):
            key = reader.text()
            self.metadata[key] = reader.value(reader.scalar("I"))
        for _ in range(tensors):
            name = reader.text()
            shape = tuple(reader.scalar("Q") for _ in range(reader.scalar("I")))
            self._where[name] = (shape[::-1], reader.scalar("I"), reader.scalar("Q"))
        align = self.metadata.get("general.alignment", 32)
        self._start = -(-reader.at // align) * align
        self._data = reader.data

    def tensor(self, name: str) -> Floats:
        shape, kind, offset = self._where[name]
        count, start = int(np.prod(shape)), self._start + offset
        if kind == _F32:
            return np.array(self._data[start : start + 4 * count]).view(np.float32).reshape(shape)
        if kind not in _BLOCK:
            raise ValueError(f"{self.path}: tensor {name} is stored as type {kind}; float32, Q4_1 and Q8_0 can be read")
        size = _BLOCK[kind]
        blocks = np.array(self._data[start : start + count // 32 * size]).reshape(-1, size)
        scale = blocks[:, 0:2].copy().view(np.float16).astype(np.float32)
        if kind == _Q8_0:
            return (blocks[:, 2:].copy().view(np.int8) * scale).reshape(shape)
        offset_of = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
        nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
        return (nibbles * scale + offset_of).reshape(shape)
