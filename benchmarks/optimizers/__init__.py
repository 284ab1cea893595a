"""Optimizers as adapters. Each sees one `EvalServer` and returns the texts it would ship; none of them imports a world."""

from __future__ import annotations

from benchmarks.optimizers.base import Optimizer
from benchmarks.optimizers.registry import OPTIMIZERS, get

__all__ = ["OPTIMIZERS", "Optimizer", "get"]
