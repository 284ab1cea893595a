"""Time and faults: the batch call, program judges, reading replies, and a panel under injected faults."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results import Row
from benchmarks.rim.alone import seconds
from gepa_atlas.errors import CallError, CallTimeout, Garbled, RateLimited, ServerFault
from gepa_atlas.lanes import Retry
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.rim.replies import read_reply
from gepa_atlas.rim.reward import RIMReward, _cases
from gepa_atlas.types import Usage

ITEMS, DELAY, AT_ONCE = 1000, 0.02, 64
TRIES = 7


@dataclass
class Model:
    """Answers after `delay` seconds with what `reply` says, or raises what it raises."""

    reply: Callable[[ChatRequest], str]
    delay: float = 0.0
    identity: str = "benchmark"
    endpoint: Endpoint = field(default_factory=lambda: Endpoint("benchmark", max_concurrency=AT_ONCE))

    async def complete(self, request: ChatRequest) -> Completion:
        if self.delay:
            await asyncio.sleep(self.delay)
        return Completion(self.reply(request), Usage(10, 5, 0.0, self.delay, 1))


def grade(score: float) -> str:
    return json.dumps({"principles": ["p"], "rationale": "so", "score": score, "uncertainty": 0.1})


_FUNCTIONS = """
import asyncio, time
async def waits(output, example):
    await asyncio.sleep({delay})
    return 0.5
def sleeps(output, example):
    time.sleep({delay})
    return 0.5
"""


def batches() -> Iterator[Row]:
    """A batch over items x delay / concurrency: by the wall clock (the least and the median of a few tries), and what it takes on a
    processor of its own (`alone`), where the work waits for timers only."""
    ideal = DELAY * ITEMS / AT_ONCE
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "judge.py"
        path.write_text(_FUNCTIONS.format(delay=DELAY))
        judges: dict[str, Any] = {"llm": "llm"}
        judges |= {f"python, {name}": {"type": "python", "function": f"{path}:{name}"} for name in ("waits", "sleeps")}
        for name, judge in judges.items():
            if name != "python, sleeps":  # threads are outside the loop
                yield _row(f"batch call, {name}, alone, median of {TRIES}", ITEMS, round(alone(judge)[TRIES // 2], 3), "x ideal", "1.2")
            with RIMReward(
                config={"judges": [judge], "concurrency": AT_ONCE}, model=lambda spec: Model(lambda r: grade(0.5), DELAY)
            ) as rim:
                taken = []
                for turn in range(TRIES):
                    began = time.perf_counter()
                    scores = rim(["q"] * ITEMS, [f"answer {turn} {i}" for i in range(ITEMS)])
                    taken.append((time.perf_counter() - began) / ideal)
                    assert scores == [0.5] * ITEMS
            for which, value in (("least", min(taken)), ("median", sorted(taken)[TRIES // 2])):
                yield _row(f"batch call, {name}, {which} of {TRIES}", ITEMS, round(value, 3), "x ideal", "1.2")


def _judging(judge: Any) -> RIMReward:
    return RIMReward(config={"judges": [judge], "concurrency": AT_ONCE}, model=lambda spec: Model(lambda r: grade(0.5), DELAY))


def alone(judge: Any, tries: int = TRIES) -> list[float]:
    """Times the ideal that a batch takes on a processor of its own, the least first."""
    taken = []
    for turn in range(tries):
        with _judging(judge) as rim:
            cases = _cases(["q"] * ITEMS, [f"answer {turn} {i}" for i in range(ITEMS)], {})
            took, evaluations = seconds(rim._batch(*cases))
            assert [e.score for e in evaluations] == [0.5] * ITEMS
        taken.append(took / (DELAY * ITEMS / AT_ONCE))
    return sorted(taken)


def programs() -> Iterator[Row]:
    spec = {
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"num_words": 3, "relation": "at least"}],
    }
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    kinds: dict[str, tuple[Any, str, Any]] = {
        "exact": ("exact", "4", None),
        "number": ({"type": "number", "rel": 0.01}, "so it is 4.00 in all", None),
        "contains": ("contains", "it is 4", None),
        "regex": ({"type": "regex", "pattern": r"(\d+)\s*$"}, "it is 4", None),
        "json_schema": ({"type": "json_schema", "json_schema": schema}, '{"a": 4}', None),
        "json_schema of the example": ("json_schema", '{"a": 4}', {"schema": schema}),
        "instructions": ("instructions", "it is four in all", spec),
    }
    for name, (judge, output, given) in kinds.items():
        with RIMReward(config={"judges": [judge]}) as rim:
            taken = []
            for turn in range(TRIES):
                specs = None if given is None else [given] * ITEMS
                began = time.perf_counter()
                scores = rim([f"q{turn}"] * ITEMS, [output] * ITEMS, ground_truths=["4"] * ITEMS, specs=specs)
                taken.append((time.perf_counter() - began) * 1000 / ITEMS)
                assert scores == [1.0] * ITEMS, scores[:3]
        yield _row(f"a reward by {name}", ITEMS, round(sorted(taken)[TRIES // 2], 4), "ms each", "1")


def replies(count: int = 10_000) -> Iterator[Row]:
    """Damaged replies: how many are read, that none is a traceback, and how long one takes."""
    random_ = random.Random(0)
    whole = json.dumps({"principles": ["it agrees", "it is short"], "rationale": "äöü \u2028 {so}", "score": 0.75, "uncertainty": 0.1})
    damage: list[Callable[[str], str]] = [
        lambda t: t[: random_.randrange(len(t))],
        lambda t: f"Sure!\n```json\n{t}\n```\nAnything else?",
        lambda t: t.replace("0.75", random_.choice(["NaN", "1e309", "-1", '"0.75"', "true", "[0.75]", "null", "0.75.1"])),
        lambda t: t.replace('"', "'"),
        lambda t: t[:-1] + ",}",
        lambda t: t + t.replace("0.75", "0.5"),
        lambda t: "".join(c if random_.random() > 0.02 else chr(random_.randrange(1, 0x2FFF)) for c in t),
        lambda t: "{" * random_.randrange(200) + t,
    ]
    texts = [random_.choice(damage)(whole) for _ in range(count - 1)] + [whole + " " * 10_000_000 + "{"]
    began = time.perf_counter()
    read = [read_reply(text) for text in texts]
    seconds = time.perf_counter() - began
    made_up = sum(r.score is not None and not 0 <= r.score <= 1 for r in read)
    yield _row("damaged replies without a traceback", count, len(read), "replies", str(count))
    yield _row("of these with a score outside [0, 1]", count, made_up, "replies", "0")
    yield _row("of these with a score", count, sum(r.score is not None for r in read), "replies", "")
    yield _row("reading one", count, round(seconds * 1000 / count, 4), "ms", "")


def faults() -> list[Row]:
    answers = ["x" * n for n in range(1, 301)]
    random_ = random.Random(3)

    def steady(request: ChatRequest) -> str:
        return grade(len(request.messages[1].content) % 10 / 10)

    def faulty(request: ChatRequest) -> str:
        if random_.random() < 0.3:
            kinds: list[CallError] = [RateLimited("429", 0.001), ServerFault("500"), CallTimeout("slow"), Garbled("half a JSON")]
            raise random_.choice(kinds)
        return steady(request)

    def down(request: ChatRequest) -> str:
        raise ServerFault("503")

    said = {name: _under(reply, answers) for name, reply in (("none", steady), ("30 %", faulty), ("all", down))}
    rows = []
    for name, scores in said.items():
        known = [s for s in scores if s is not None]
        rows.append(
            {
                "faults": name,
                "rewards": len(scores),
                "scored": len(known),
                "none": len(scores) - len(known),
                "equal_to_no_faults": sum(a == b for a, b in zip(scores, said["none"], strict=True)),
                "zeros_made_up": 0 if name != "all" else sum(s == 0.0 for s in known),
            }
        )
    return rows


def _under(reply: Callable[[ChatRequest], str], answers: list[str]) -> list[float | None]:
    retry = Retry(attempts=30, first_wait=0.001, longest_wait=0.01)
    with RIMReward(
        config={"judges": [{"type": "llm", "draws": 2}], "concurrency": 32}, model=lambda spec: Model(reply), retry=retry
    ) as rim:
        found: list[float | None] = rim(["q"] * len(answers), answers)
        return found


def _row(what: str, n: int, figure: float, unit: str, asked: str) -> Row:
    return {"what": what, "n": n, "figure": figure, "unit": unit, "asked": asked}
