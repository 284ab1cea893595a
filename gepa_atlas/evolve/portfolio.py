"""Which operator makes the next child: Thompson sampling over what each one's rollouts have brought.

An operator is worth the gain its children are expected to have over their parents, per rollout: E[max(0, q_child - q_parent)] summed over
its children, over what they cost. A harmless change therefore earns nothing, however often it does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FORGET = 0.97  # evidence on an operator fades: what paid early may not pay late
_PRIOR_CHILDREN = 2.0  # pseudo-children that every operator starts with, as good as the portfolio's average


@dataclass(frozen=True, slots=True)
class Operator:
    """A proposer as the engine knows it: its name and how many train lessons of the parent it reads."""

    name: str
    reads: int = 0


class Portfolio:
    def __init__(self, operators: tuple[Operator, ...]) -> None:
        self.operators = operators
        names = [o.name for o in operators]
        self.gained = dict.fromkeys(names, 0.0)  # expected improvement over parents
        self.spent = dict.fromkeys(names, 0.0)  # rollouts
        self.children = dict.fromkeys(names, 0.0)

    def pick(self, random: np.random.Generator) -> Operator:
        """A draw from the posterior of each operator's gain per rollout (Gamma, in units of the average child); the best one is next."""
        children = sum(self.children.values())
        gain = (sum(self.gained.values()) + 0.05) / (children + 1)
        cost = (sum(self.spent.values()) + 8.0) / (children + 1)
        draws = []
        for o in self.operators:
            shape = _PRIOR_CHILDREN + self.gained[o.name] / gain
            draws.append(random.gamma(shape) / (_PRIOR_CHILDREN * cost + self.spent[o.name]))
        return self.operators[int(np.argmax(draws))]

    def credit(self, name: str, improvement: float, rollouts: int) -> None:
        """`improvement`: expected gain of the child over its parent, 0 when there was no child. A refusal costs like one rollout."""
        for table in (self.gained, self.spent, self.children):
            for key in table:
                table[key] *= _FORGET if key == name else 1.0
        self.gained[name] += improvement
        self.spent[name] += max(1, rollouts)
        self.children[name] += 1
