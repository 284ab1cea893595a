"""A world as the server sees it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.server import Rollout, Texts
from benchmarks.simland.reflector import Reflector
from benchmarks.simland.traces import feedback, question, reply
from benchmarks.simland.world import World


class SimLandscape:
    """Implements `benchmarks.server.Landscape`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.components: tuple[str, ...] = tuple(world.components)
        self.train_ids = tuple(f"t{i}" for i in range(world.n_train))
        self.val_ids = tuple(f"v{i}" for i in range(world.n_val))
        self._rows = {name: i for i, name in enumerate((*self.train_ids, *self.val_ids))}
        self._reflector = Reflector(world)

    def seed(self) -> dict[str, str]:
        return dict(self.world.seed_candidate)

    def question(self, example: str) -> str:
        return question(self.world, self._rows[example])

    def answer(self, example: str) -> str:
        return ""

    def run(self, candidate: Texts, examples: Sequence[str], calls: Sequence[int]) -> list[Rollout]:
        rows = np.array([self._rows[e] for e in examples], dtype=np.int64)
        judged, success = self.world.run(candidate, rows, np.array(calls, dtype=np.int64))
        return [
            Rollout(e, float(s), reply(self.world, int(r), bool(ok)), partial(feedback, self.world, candidate, int(r), n, float(s)))
            for e, r, n, s, ok in zip(examples, rows, calls, judged, success, strict=True)
        ]

    def reflect(self, prompt: str, call: int) -> str:
        return self._reflector(prompt, call)
