"""Counter-based randomness: a number is a function of its address, so no call order can change it. SplitMix64 (Steele 2014)."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


def key64(*address: str | int) -> int:
    """A 64-bit key of an address, the same on every platform."""
    return int.from_bytes(hashlib.blake2b(repr(address).encode(), digest_size=8).digest(), "big")


def generator(*address: str | int) -> np.random.Generator:
    """A numpy generator that is a function of its address."""
    return np.random.Generator(np.random.PCG64(key64(*address)))


def _mix(x: U64) -> U64:
    x = (x ^ (x >> _S30)) * _A
    x = (x ^ (x >> _S27)) * _B
    return x ^ (x >> _S31)


def uniforms(key: int, example: npt.NDArray[np.int64], ordinal: npt.NDArray[np.int64], stream: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1) of shape (n,), one per (key, example, ordinal, stream)."""
    base = np.uint64(key) ^ np.uint64((stream * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF)
    x = _mix(base + example.astype(np.uint64) * _GOLDEN)
    x = _mix(x + ordinal.astype(np.uint64) * _A + _GOLDEN)
    return (x >> _S11).astype(np.float64) * 2.0**-53
