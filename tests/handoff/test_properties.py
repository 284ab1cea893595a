"""What holds for every run, whatever was taught in it and whatever came of it."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gepa_atlas.errors import DataError
from gepa_atlas.handoff.config import ExportConfig
from gepa_atlas.handoff.evidence import Evidence, Fact
from gepa_atlas.types import Attempt, Demo, Example, Guidance, JudgeScore, Lesson, Reward, StopReason
from tests.handoff.desk import document, export, rows, validate

SCORES = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 1.0, None])
SPLITS = st.sampled_from(["train", "train", "train", "val", "test"])
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def reward(value: float | None, doubt: float) -> Reward:
    if value is None:
        return Reward.none("timeout", "the judge did not answer")
    return Reward(value, (JudgeScore("exact", value),), uncertainty=doubt)


@st.composite
def runs(draw: st.DrawFn) -> list[Lesson]:
    """Lessons of one run: tasks keep their split, a task has one baseline, a cell is taught once."""
    protocol = draw(st.sampled_from(["playbook", "lesson"]))
    tasks = [
        Example(f"t{n}", f"How much is {n} and one?", (f"the answer is {n + 1}",), "", draw(SPLITS), spec="{}" if n % 3 else "")
        for n in range(draw(st.integers(1, 8)))
    ]
    tasks += [Example("always", "What trains?", ("this",), "", "train")]
    before = {task.id: reward(draw(st.sampled_from([0.0, 0.0, 0.5, 1.0, None])), draw(st.sampled_from([0.0, 0.1]))) for task in tasks}
    lessons = []
    for task in tasks:
        for candidate in range(draw(st.integers(0, 4))):
            for sample in range(draw(st.integers(1, 2))):
                second = Attempt("out", stop=draw(st.sampled_from([StopReason.DONE, StopReason.DONE, StopReason.LENGTH])))
                text = f"Way {candidate}." + (" The answer is 3." if draw(st.integers(0, 9)) == 0 else "")
                demos = (Demo("d", "How much is 2 and one?", "3"),) if candidate == 3 else ()
                given_ = (("temperature", 0.5),) if candidate == 2 and draw(st.booleans()) else ()
                lessons.append(
                    Lesson(
                        task, f"c{candidate}", sample, protocol, Attempt("first try"), Guidance(text, demos, given_), second,
                        before[task.id], reward(draw(SCORES), draw(st.sampled_from([0.0, 0.05]))),
                    )
                )  # fmt: skip
    return lessons


def write(lessons: list[Lesson], path: Path, **more: Any) -> Path:
    path.write_text("".join(json.dumps(lesson.to_json() | more) + "\n" for lesson in lessons))
    return path


@given(
    runs(), st.integers(1, 3), st.sampled_from([None, 1, 2]), st.sampled_from([0.0, 0.02, 0.3]), st.sampled_from([0.0, 1.0, 1.6]),
    st.booleans(), st.sampled_from([None, 1, 3]),
)  # fmt: skip
@FEW
def test_every_export_keeps_the_rules(
    lessons: list[Lesson], m: int, k: int | None, least: float, z: float, val: bool, most: int | None
) -> None:
    assume(lessons)
    keys: dict[str, Any] = {"top_per_task": m, "top_per_candidate": k, "min_delta": least, "z": z, "include_val": val, "max_samples": most}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        place = Path(name)
        try:
            export(write(lessons, place / "some.jsonl"), place / "out", sft=False, **keys)
        except DataError as error:
            assert not list((place / "out" / "handoff").iterdir())
            train = {lesson.example.id for lesson in lessons if lesson.example.split == "train"}
            assert not train or "no task is left to train on" in str(error)
            return
        check(place / "out", lessons, ExportConfig(**keys))
        validate_and_expect(place / "out", lessons)


def check(out: Path, lessons: list[Lesson], config: ExportConfig) -> None:
    split = {lesson.example.id: lesson.example.split for lesson in lessons}
    manifest = document(out, "manifest.json")
    sets = {name: rows(out, name) for name in ("traces", "baselines", "sft", "dpo", "kto", "grpo_train", "grpo_val")}
    allowed = {name: {"train"} for name in sets} | {"traces": {"train", "val"}, "baselines": {"train", "val"}, "grpo_val": {"val"}}
    for name, found in sets.items():
        assert {split[row["task_id"]] for row in found} <= allowed[name] - (set() if config.include_val else {"val"}), name
    # every lesson is in traces.jsonl or counted under why it is not, and no number is lost on the way
    counts = manifest["lessons"]
    assert counts["read"] == len(lessons) == sum(counts["removed"].values()) + counts["exported"]
    assert counts["exported"] == len(sets["traces"]) == sum(counts["by_split"].values()) == sum(counts["by_status"].values())
    own, offered = manifest["sft"], manifest["sft"]["from_candidates"]
    assert own["guidances"] == sum(own["removed"].values()) + own["kept"]
    assert len(sets["sft"]) == own["kept"] + offered["kept"] == manifest["rows"]["sft"]
    grpo = manifest["grpo"]
    assert grpo["tasks"] == sum(s == "train" for s in split.values()) == sum(grpo["removed"].values()) + grpo["kept"]
    assert grpo["kept"] == len(sets["grpo_train"]) and all(row["weight"] > 0 for row in sets["grpo_train"])
    # the caps hold, and what is better comes first
    for kind in ("lesson", "candidate"):
        chosen = [row for row in sets["sft"] if row["evidence"] == kind]
        per_task = Counter(row["task_id"] for row in chosen)
        assert max(per_task.values(), default=0) <= config.top_per_task
        if config.top_per_candidate is not None:
            assert max(Counter(row["candidate_id"] for row in chosen).values(), default=0) <= config.top_per_candidate
        assert all(row["delta_low"] >= config.min_delta and row["delta"] >= row["delta_low"] for row in chosen)
        bounds: dict[str, list[float]] = {}
        for row in chosen:
            bounds.setdefault(row["task_id"], []).append(row["delta_low"])
        assert all(values == sorted(values, reverse=True) for values in bounds.values())
        rounds = [[values[n] for values in bounds.values() if len(values) > n] for n in range(config.top_per_task)]
        assert [row["delta_low"] for row in chosen] == [value for one in rounds for value in sorted(one, reverse=True)]
    assert max(Counter(row["task_id"] for row in sets["dpo"]).values(), default=0) <= config.top_per_task
    assert all(row["gap"] >= config.pair_gap for row in sets["dpo"])
    solved = {lesson.example.id for lesson in lessons if lesson.before.value == 1.0}
    assert not solved & {row["task_id"] for row in sets["grpo_train"]}


def validate_and_expect(out: Path, lessons: list[Lesson]) -> None:
    """The exporter never makes what the validator refuses, but for what the run itself is to blame for."""
    try:
        validate(out)
    except DataError as error:
        which = str(error).split(": ")[1]
        assert which in ("judge_failed", "rows", "contaminated_prompt"), error
        assert which != "rows" or not rows(out, "sft")
        told = {lesson.candidate_id for lesson in lessons if "answer" in lesson.guidance.text}
        assert which != "contaminated_prompt" or (lessons[0].protocol == "playbook" and told)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30),
    st.floats(0, 3, allow_nan=False),
)
def test_bounds_are_below_and_fall_with_noise(cells: list[tuple[int, int, float]], z: float) -> None:
    facts = [
        Fact(f"x{n}", f"t{t}", "train", f"c{g}", f"g{g}", "b", 0.5, after, 0.0, 0.0, False, True, False, False)
        for n, (t, g, after) in enumerate(cells)
    ]
    evidence = Evidence(facts, z)
    variance, freedom = evidence.noise
    groups = Counter((f.task_id, f.guidance_id) for f in facts)
    assert freedom == sum(n - 1 for n in groups.values()) and (variance is None) == (freedom == 0)
    assert len(evidence.played) == len(groups)
    for played in evidence.played:
        expected = z * math.sqrt((variance or 0.0) * (1 + 1 / played.n))
        assert math.isclose(played.delta - played.delta_low, expected, abs_tol=1e-12)


def test_a_lucky_lesson_does_not_beat_a_repeated_one() -> None:
    """The winner's curse: 1.0 once is worth less than .9 four times when repeats differ as much as these do."""
    after = {"lucky": [1.0], "steady": [1.0, 0.8, 0.8, 1.0], "noise": [0.0, 1.0, 0.0, 1.0]}
    facts = [
        Fact(f"{name}{n}", "t", "train", name, name, "b", 0.0, value, 0.0, 0.0, False, True, False, False)
        for name, values in after.items()
        for n, value in enumerate(values)
    ]
    best = max(Evidence(facts, 1.0).played, key=lambda played: played.delta_low)
    assert best.candidate_id == "steady" and max(Evidence(facts, 0.0).played, key=lambda p: p.delta_low).candidate_id == "lucky"
