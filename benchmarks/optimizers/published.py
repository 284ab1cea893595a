"""Loops of published optimizers, small, for the stylised facts only: whole rewrites or item edits, and selection with or without bootstrap.

ESPO (2026): diagnose all train errors, several proposal operators, bootstrap stability selection with ties to the shorter prompt.
ACE (arXiv 2510.04618): item-wise delta updates in place of whole rewrites.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.optimizers.base import REFLECTION, fenced, step_feedback
from benchmarks.server import BudgetExhausted, EvalServer, Rollout

_EDITS = """You improve the instructions of an assistant by small item-wise edits. The current instructions, numbered:
{current}

Examples of inputs, responses and feedback:
{examples}

Answer with one JSON object: "edits", a list of at most 3 edits, each with "component", "op" (add, replace or drop), "item", "text"."""
_SHORTER = "\n\nMake the instruction shorter: keep what matters and drop what does not."


@dataclass(frozen=True)
class Config:
    """`proposals` a round, from `operators` in turn; `stable` selects by bootstrap, otherwise by the raw mean."""

    delta: bool = False
    proposals: int = 1
    diverse: bool = False
    stable: bool = False
    gate: bool = True  # without it every proposal is taken and nothing is validated
    minibatch: int = 3
    val: int = 20  # val examples each proposal and the incumbent are compared on


def run(server: EvalServer, seed: int, config: Config) -> dict[str, str]:
    """Hill climbing from the incumbent: reflect on its failures, validate on a fresh val sample with the incumbent beside."""
    rng = random.Random(seed)
    best = dict(server.seed)
    server.watch(lambda: best)
    n = 0
    try:
        while True:
            component = server.components[n % len(server.components)]
            n += 1
            pool = [best]
            for k in range(config.proposals):
                read = server.evaluate(best, rng.sample(server.train_ids, min(config.minibatch, len(server.train_ids))))
                pool.append(_propose(server, best, component, read, config, k))
            if not config.gate:
                best = pool[-1]
                continue
            cells = rng.sample(server.val_ids, min(config.val, len(server.val_ids)))
            table = [[r.score for r in server.evaluate(texts, cells)] for texts in pool]
            best = pool[_stable(table, pool, rng) if config.stable else max(range(len(pool)), key=lambda i: mean_of(table[i]))]
    except BudgetExhausted:
        return best


def mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _stable(table: Sequence[Sequence[float]], pool: Sequence[dict[str, str]], rng: random.Random) -> int:
    """The candidate that beats the incumbent in most of 20 bootstrap resamples, if in three of four; ties to the shorter prompt."""
    n, wins = len(table[0]), [0] * len(pool)
    for _ in range(20):
        draw = [rng.randrange(n) for _ in range(n)]
        bar = sum(table[0][j] for j in draw)
        for i in range(1, len(pool)):
            wins[i] += sum(table[i][j] for j in draw) > bar
    top = max(range(1, len(pool)), key=lambda i: (wins[i], -_size(pool[i])))
    return top if wins[top] >= 15 else 0


def _size(texts: dict[str, str]) -> int:
    return sum(map(len, texts.values()))


def _propose(server: EvalServer, parent: dict[str, str], component: str, read: Sequence[Rollout], config: Config, k: int) -> dict[str, str]:
    shown = "\n".join(
        f"# Example {i}\n{server.question(r.example)}\n{r.output}\n{step_feedback(r.feedback, component, server.components)}\n"
        for i, r in enumerate(read, 1)
    )
    shorten = config.diverse and k % 4 == 3
    if config.delta and not shorten:
        lines = parent[component].splitlines()
        numbered = "\n".join(f"[{i}] {line}" for i, line in enumerate(lines, 1))
        return {**parent, component: _applied(lines, server.reflect(_EDITS.replace("{current}", numbered).replace("{examples}", shown)))}
    prompt = REFLECTION.replace("{current}", parent[component]).replace("{examples}", "" if shorten else shown)
    return {**parent, component: fenced(server.reflect(prompt + (_SHORTER if shorten else "")))}


def _applied(lines: list[str], answer: str) -> str:
    """The component after the edits of an answer; edits that name no line are left out."""
    out: list[str | None] = list(lines)
    for edit in json.loads(answer)["edits"]:
        number, text = edit["item"], edit["text"]
        if edit["op"] == "add":
            out.append(f"- {text}")
        elif isinstance(number, int) and 1 <= number <= len(lines):
            out[number - 1] = f"- {text}" if edit["op"] == "replace" else None
    return "\n".join(line for line in out if line is not None)
