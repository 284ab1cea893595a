"""How large and how quick a report is: python -m benchmarks.report [--candidates 2000] [--examples 500] [--cells 24] [--browser]

A run of that size is made up (texts of ordinary length, a lineage, two judges, failures) and its page is built; `--browser` opens it in an
installed chromium and measures the time until it is drawn and the frames of a scroll. `--cells 0` is every candidate on every example.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gepa_atlas.evolve.engine import Standing
from gepa_atlas.evolve.stats import scorecard
from gepa_atlas.evolve.verdict import rule
from gepa_atlas.report.evidence import Evidence, credits
from gepa_atlas.report.html import page
from gepa_atlas.report.ledger import Slot
from gepa_atlas.report.markdown import markdown
from gepa_atlas.report.record import Member, RunRecord
from gepa_atlas.types import (
    Attempt,
    Candidate,
    Decision,
    Demo,
    Example,
    Guidance,
    JudgeScore,
    Lesson,
    Reward,
    SlotKind,
    Status,
    Usage,
)

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
_OPERATORS = ("reflect", "edit", "demos", "merge", "compose")
_WORDS = (
    *("the", "ticket", "names", "a", "parcel", "order", "refund", "answer", "only", "with", "its", "number", "reply", "politely"),
    *("first", "read", "carefully", "cite", "rule", "when", "late"),
)

Words = Callable[[np.random.Generator, int], str]


def plain(random: np.random.Generator, n: int) -> str:
    return " ".join(_WORDS[i] for i in random.integers(0, len(_WORDS), n))


def synthetic(candidates: int, examples: int, cells: int, *, seed: int = 0, words: Words = plain) -> Evidence:
    """A finished run of so many candidates and examples, each candidate taught on `cells` of them (0: on all)."""
    random = np.random.default_rng(seed)
    asked = [_example(random, i, examples, words) for i in range(examples)]
    everyone = _lineage(random, candidates, [e for e in asked if e.split == "train"], words)
    baselines = {e.id: _judged(random, 0.3, words) for e in asked}
    seed_, winner = everyone[0], everyone[-1]
    lessons: list[Lesson] = []
    for k, candidate in enumerate(everyone):
        skill = 0.3 + 0.6 * k / candidates
        searched = [e for e in asked if e.split != "test"]
        chosen = searched if not cells else [searched[i] for i in random.choice(len(searched), min(cells, len(searched)), replace=False)]
        if candidate in (seed_, winner):
            chosen = [*chosen, *(e for e in asked if e.split == "test")]
        lessons += [_lesson(random, candidate, e, skill, baselines[e.id], words) for e in chosen]
    return _finished(everyone, asked, lessons)


def _finished(everyone: list[Candidate], asked: list[Example], lessons: list[Lesson]) -> Evidence:
    seed, winner = everyone[0], everyone[-1]
    by_candidate: dict[str, list[Lesson]] = {c.id: [] for c in everyone}
    for lesson in lessons:
        if lesson.example.split != "test":
            by_candidate[lesson.candidate_id].append(lesson)
    members = tuple(Member(c, scorecard(c.id, by_candidate[c.id], len(by_candidate[c.id])), f"made by {c.origin}") for c in everyone)
    test = [lesson for lesson in lessons if lesson.example.split == "test"]
    slots = tuple(_slot(n, c) for n, c in enumerate(everyone))
    splits = {split: sum(e.split == split for e in asked) for split in ("train", "val", "test")}
    record = RunRecord(
        run_id="synthetic",
        name="synthetic",
        seed=seed,
        challenger=winner,
        verdict=rule(seed, winner, test, splits["test"]),
        population=members,
        frontier=(winner.id,),
        decisions=tuple(slot.decision for slot in slots),
        spend={"student": Usage(10_000, 2_000, 0.25, 90.0, len(lessons))},
        rollouts=len(lessons),
        stop_reason="it was made up",
        splits=splits,
        digest="0" * 64,
        protocol="playbook",
    )
    course = tuple(Standing(10 * n, c.id, 0.6 * n / len(everyone), 0.01) for n, c in enumerate(everyone))
    credit = credits(slots, dict.fromkeys(_OPERATORS, 1.0), dict.fromkeys(_OPERATORS, 40.0))
    return Evidence(record, tuple(lessons), slots, course, credit, 1_790_000_000.0)


def _example(random: np.random.Generator, i: int, examples: int, words: Words) -> Example:
    split = "test" if i < examples // 5 else "val" if i < examples // 2 else "train"
    return Example(f"example-{i:05d}", words(random, 40), (words(random, 3),), split=split)


def _lineage(random: np.random.Generator, n: int, train: list[Example], words: Words) -> list[Candidate]:
    pool = [Demo.of(e) for e in train[:40]]
    everyone = [Candidate.of({"guidance": "\n".join(words(random, 12) for _ in range(10))})]
    while len(everyone) < n:
        parent = everyone[int(random.integers(max(0, len(everyone) - 50), len(everyone)))]
        lines = parent.text("guidance").split("\n")
        lines[int(random.integers(len(lines)))] = words(random, 12)
        demos = tuple(pool[i] for i in random.choice(len(pool), 3, replace=False)) if pool and random.random() < 0.3 else parent.demos
        origin = _OPERATORS[len(everyone) % len(_OPERATORS)]
        everyone.append(parent.child(origin, texts={"guidance": "\n".join(lines)}, demos=demos))
    return everyone


def _judged(random: np.random.Generator, skill: float, words: Words) -> tuple[Attempt, Reward]:
    if random.random() < 0.02:
        attempt = Attempt.failed("timeout", "no answer within 20 s")
        return attempt, Reward.none("timeout", "there is no answer to judge")
    value = float(random.random() < skill)
    second = value if random.random() < 0.9 else 1.0 - value
    parts = (JudgeScore("exact", value, words(random, 10), 0.0), JudgeScore("llm", second, words(random, 14), 0.1))
    attempt = Attempt(words(random, 25), Usage(120, 25, 0.0002, 0.5, 1))
    return attempt, Reward((value + second) / 2, parts, "the mean of both", 0.05)


def _lesson(
    random: np.random.Generator, candidate: Candidate, example: Example, skill: float, baseline: tuple[Attempt, Reward], words: Words
) -> Lesson:
    attempt, reward = _judged(random, skill, words)
    guidance = Guidance(candidate.text("guidance"), candidate.demos)
    return Lesson(example, candidate.id, 0, "playbook", baseline[0], guidance, attempt, baseline[1], reward)


def _slot(n: int, candidate: Candidate) -> Slot:
    if n == 0:
        decision = Decision(0, SlotKind.MEASURE, "seed", candidate.id, Status.IMPROVED, "new best", 12)
        return Slot(0, (candidate.id,), (), (), "", None, (), decision)
    status = (Status.NEW, Status.NOT_ADDED, Status.IMPROVED)[n % 3]
    decision = Decision(n, SlotKind.CHILD, candidate.origin, candidate.id, status, f"mean gain +0.{n % 100:02d} on 6 val examples", 6)
    return Slot(n, candidate.parents, (), (), "a line was replaced", candidate, (), decision)


def browse(path: Path) -> dict[str, float]:
    """Seconds until the page is drawn, and of a scroll through every list: time between frames, script and
    layout of one step, and how many rows exist at once."""
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as profile, sync_playwright() as play:
        context = play.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=FLAGS, viewport={"width": 1280, "height": 800}
        )
        tab = context.pages[0]
        began = time.monotonic()
        tab.goto(path.as_uri())
        tab.wait_for_selector("body[data-ready]", timeout=60_000)
        ready = time.monotonic() - began
        found = {"ready": ready}
        for box in ("tree", "ex-list"):
            found |= {f"{box} {name}": value for name, value in tab.evaluate(_SCROLL, box).items()}
        context.close()
    return found


_SCROLL = """async id => {
  const box = document.getElementById(id), frames = [], work = [];
  box.scrollIntoView();
  let last = performance.now(), rows = 0;
  for (let k = 0; k < 90; k++) {
    const began = performance.now();
    box.scrollTop += box.scrollHeight / 90;
    box.dispatchEvent(new Event('scroll'));
    box.getBoundingClientRect();
    work.push(performance.now() - began);
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - last); last = performance.now();
    rows = Math.max(rows, box.querySelectorAll('.row').length);
  }
  for (const list of [frames, work]) list.sort((a, b) => a - b);
  return {frame_ms: frames[45], frame_p95_ms: frames[85], work_ms: work[45], work_p95_ms: work[85], rows};
}"""


def measure(arguments: argparse.Namespace) -> Iterator[str]:
    evidence = synthetic(arguments.candidates, arguments.examples, arguments.cells)
    yield f"{len(evidence.record.population):,} candidates, {arguments.examples:,} examples, {len(evidence.lessons):,} lessons"
    began = time.process_time(), time.monotonic()
    html, text = page(evidence), markdown(evidence)
    cpu, wall = time.process_time() - began[0], time.monotonic() - began[1]
    yield f"built in {wall:.2f} s ({cpu:.2f} s of processor time): report.html {len(html) / 1e6:.2f} MB, report.md {len(text) / 1e3:.1f} kB"
    if arguments.browser:
        with TemporaryDirectory() as directory:
            path = Path(directory) / "report.html"
            path.write_bytes(html)
            yield from (f"{name}: {value:.2f}" for name, value in browse(path).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--browser", action="store_true")
    for line in measure(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
