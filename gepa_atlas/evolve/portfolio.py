"""Which operator makes the next child: Thompson sampling over how often each one's children turn out better than the parent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FORGET = 0.97  # evidence on an operator fades: what paid early may not pay late


@dataclass(frozen=True, slots=True)
class Operator:
    """A proposer as the engine knows it: its name and how many train lessons of the parent it reads."""

    name: str
    reads: int = 0


class Portfolio:
    def __init__(self, operators: tuple[Operator, ...]) -> None:
        self.operators = operators
        self.won = dict.fromkeys((o.name for o in operators), 0.0)
        self.lost = dict.fromkeys((o.name for o in operators), 0.0)

    def pick(self, random: np.random.Generator) -> Operator:
        draws = [random.beta(1 + self.won[o.name], 1 + self.lost[o.name]) for o in self.operators]
        return self.operators[int(np.argmax(draws))]

    def credit(self, name: str, chance_better: float) -> None:
        """`chance_better`: posterior probability that the child beats its parent; 0 when there was no child."""
        for table in (self.won, self.lost):
            table[name] *= _FORGET
        self.won[name] += chance_better
        self.lost[name] += 1 - chance_better
