"""What the reproducible mode of the embedded model costs, and that it holds: `python benchmarks/embedded_model.py`.

The work is that of a search: candidates of 4 demonstrations, each asked a minibatch of 6 questions, and one candidate asked a
validation set, all at concurrency 8. The modes are measured in turns, so that a busy machine burdens them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import random
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from gepa_atlas.llm.llamacpp import Job, Pool, Tokenize, weights
from gepa_atlas.llm.local import _affinity, _body, _tokens
from gepa_atlas.llm.slots import Prompt
from gepa_atlas.ports import ChatRequest
from gepa_atlas.types import Message

ORDERS = Path(__file__).parent.parent / "configs/examples/data/orders.jsonl"
SYSTEM = "Extract the order id from the customer's message."
Bits = tuple[str, str]  # the text, and the log-probabilities of every token with three alternatives, as JSON


def work(candidates: int, questions: int) -> list[ChatRequest]:
    rows = [json.loads(line) for line in ORDERS.read_text(encoding="utf-8").splitlines()]
    train = [r for r in rows if r["split"] == "train"]
    val = [r for r in rows if r["split"] == "val"]
    rng = random.Random(0)
    requests = []
    for number in range(candidates):
        turns = [Message("system", SYSTEM)]
        for row in rng.sample(train, 4):
            turns += [Message("user", row["question"]), Message("assistant", row["answer"])]
        asked = val[:questions] if number == 0 else rng.sample(train, 6)
        requests += [ChatRequest((*turns, Message("user", r["question"])), max_tokens=16, top_logprobs=3) for r in asked]
    return requests


def whole(request: ChatRequest, tokenize: Tokenize) -> Prompt:
    """Without a shared prefix: every prompt is computed from its first token."""
    return Prompt(_tokens(request, tokenize).tokens, 0)


def ask(pool: Pool, requests: list[ChatRequest], *, concurrency: int, cached: bool = True) -> tuple[list[Bits], float, float]:
    """Answers in the order of `requests`, wall seconds, CPU seconds of this process (its servers are in it)."""

    async def go() -> list[Bits]:
        gate = asyncio.Semaphore(concurrency)

        async def one(request: ChatRequest) -> Bits:
            async with gate:
                build = functools.partial(_tokens if cached else whole, request)
                job = Job(build, _body(request), _affinity(request))
                pool.submit(job)
                future: Future[tuple[Prompt, dict[str, Any]]] = job.future
                _, answer = await asyncio.wrap_future(future)
                return answer["content"], json.dumps(answer["completion_probabilities"])

        return list(await asyncio.gather(*(one(r) for r in requests)))

    wall, cpu = time.monotonic(), time.process_time()
    answers = asyncio.run(go())
    return answers, time.monotonic() - wall, time.process_time() - cpu


def speed(requests: list[ChatRequest], rounds: int) -> None:
    pools = {
        "fast (one server, 8 slots)": (fast(), True),
        "reproducible (two servers)": (reproducible(2), True),
        "no prefix reuse (two servers)": (reproducible(2), False),
    }
    sums = {name: [0.0, 0.0] for name in pools}
    for name, (pool, cached) in pools.items():
        ask(pool, requests[:16], concurrency=8, cached=cached)
        print(f"{name}: started", flush=True)
    for _ in range(rounds):
        for name, (pool, cached) in pools.items():
            _, wall, cpu = ask(pool, requests, concurrency=8, cached=cached)
            sums[name][0] += wall
            sums[name][1] += cpu
    count = rounds * len(requests)
    for name, (wall, cpu) in sums.items():
        print(f"{name}: {count / wall:.2f} requests/s, {cpu / count * 1000:.0f} ms of CPU each", flush=True)
    for pool, _ in pools.values():
        pool.close()


def exactness(requests: list[ChatRequest]) -> None:
    pool = reproducible(2)
    reference, _, _ = ask(pool, requests, concurrency=1)
    seen = dict(zip(map(id, requests), reference, strict=True))

    def compare(label: str, pool: Pool, concurrency: int, order: list[ChatRequest]) -> None:
        found, _, _ = ask(pool, order, concurrency=concurrency)
        pairs = [(a, seen[id(r)]) for a, r in zip(found, order, strict=True)]
        texts, bits = sum(a[0] == b[0] for a, b in pairs), sum(a == b for a, b in pairs)
        print(f"{label}, concurrency {concurrency}, shuffled: equal texts {texts}/{len(pairs)}, equal bits {bits}/{len(pairs)}", flush=True)

    for concurrency in (1, 2, 8):
        compare("same servers", pool, concurrency, random.Random(concurrency).sample(requests, len(requests)))
    pool.close()
    for servers, slots, concurrency in ((1, 1, 8), (2, 2, 8), (3, 4, 8)):
        pool = reproducible(servers, slots)
        order = random.Random(10 * servers).sample(requests, len(requests))
        compare(f"fresh, {servers} servers of {slots} prefixes", pool, concurrency, order)
        pool.close()
    pool = fast()
    compare("fast mode", pool, 8, random.Random(4).sample(requests, len(requests)))
    pool.close()


def reproducible(servers: int, slots: int = 4) -> Pool:
    return Pool(weights(), reproducible=True, context=2048, slots=slots, workers=servers, threads=1)


def fast() -> Pool:
    return Pool(weights(), reproducible=False, context=2048, slots=8, workers=8, threads=2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=9)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=["speed", "exactness"])
    chosen = parser.parse_args()
    asked = work(chosen.candidates, chosen.questions)
    print(f"{len(asked)} requests")
    if chosen.only != "speed":
        exactness(asked)
    if chosen.only != "exactness":
        speed(asked, chosen.rounds)
