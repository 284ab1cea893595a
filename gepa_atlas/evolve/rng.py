"""Randomness has an address. Nothing carries a generator, so nothing has to save one."""

from __future__ import annotations

import hashlib

import numpy as np


def rng(seed: int, *address: str | int) -> np.random.Generator:
    """A generator that is a function of its address: same (seed, slot, purpose), same numbers, on every platform."""
    key = hashlib.sha256(repr((seed, *address)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "big")))
