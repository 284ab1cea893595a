"""Null, random search, best-of-N and greedy hill climbing: the sanity of every table."""

from __future__ import annotations

import random

from benchmarks.optimizers.base import mean, reflect
from benchmarks.server import BudgetExhausted, EvalServer

MINIBATCH = 3


def null(server: EvalServer, seed: int) -> dict[str, str]:
    """Ships the seed and spends nothing."""
    return dict(server.seed)


def best_of_n(server: EvalServer, seed: int) -> dict[str, str]:
    """Proposals from the seed only, each validated in full; the best validation mean wins."""
    rng = random.Random(seed)
    best = dict(server.seed)
    server.watch(lambda: best)
    try:
        top, n = mean(server.evaluate(best, server.val_ids)), 0
        while True:
            component = server.components[n % len(server.components)]
            n += 1
            rollouts = server.evaluate(server.seed, rng.sample(server.train_ids, MINIBATCH))
            child = reflect(server, server.seed, component, rollouts)
            score = mean(server.evaluate(child, server.val_ids))
            if score > top:
                best, top = child, score
    except BudgetExhausted:
        return best


def random_search(server: EvalServer, seed: int) -> dict[str, str]:
    """Parents at random from everything ever proposed, every child validated on at most 20 examples, the best mean wins."""
    rng = random.Random(seed)
    best = dict(server.seed)
    server.watch(lambda: best)
    pool = [best]
    try:
        top, n = mean(server.evaluate(best, rng.sample(server.val_ids, min(20, len(server.val_ids))))), 0
        while True:
            parent, component = rng.choice(pool), server.components[n % len(server.components)]
            n += 1
            child = reflect(server, parent, component, server.evaluate(parent, rng.sample(server.train_ids, MINIBATCH)))
            pool.append(child)
            score = mean(server.evaluate(child, rng.sample(server.val_ids, min(20, len(server.val_ids)))))
            if score > top:
                best, top = child, score
    except BudgetExhausted:
        return best


def greedy(server: EvalServer, seed: int) -> dict[str, str]:
    """Always mutate the best so far; every child is validated in full."""
    rng = random.Random(seed)
    best = dict(server.seed)
    server.watch(lambda: best)
    try:
        top, n = mean(server.evaluate(best, server.val_ids)), 0
        while True:
            component = server.components[n % len(server.components)]
            n += 1
            child = reflect(server, best, component, server.evaluate(best, rng.sample(server.train_ids, MINIBATCH)))
            score = mean(server.evaluate(child, server.val_ids))
            if score > top:
                best, top = child, score
    except BudgetExhausted:
        return best
