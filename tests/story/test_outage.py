"""An endpoint that goes away in the middle of a run, whichever and whenever: exit code 75, and once it is back the same command comes to
the result of a run that nothing disturbed. A single request that its endpoint cannot answer is no outage."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.story.school import School, opened
from tests.story.stage import Stage
from tests.story.test_lessons import WORD, edit, student, write
from tests.story.witness import digest, rollouts

RETRY = "retry={{attempts: {}, first_wait: 0.001, longest_wait: 0.004, breaker: {}}}"


@dataclass(frozen=True)
class Town:
    """Student, teacher and reflection model, each a server of its own; `calls` is how many each answers in an undisturbed run."""

    stage: Stage
    schools: dict[str, School]
    config: Path
    digest: str = ""
    calls: tuple[tuple[str, int], ...] = ()

    def optimize(self, run: Path, concurrency: int = 8, attempts: int = 2, breaker: int = 4) -> Any:
        sets = ("--set", RETRY.format(attempts, breaker), "--set", f"concurrency={concurrency}")
        return self.stage.run("optimize", self.config, "--run-dir", run, "--quiet", *sets)


def teacher(body: dict[str, Any]) -> str:
    return f"<teaching>Say {WORD}.</teaching>" if "generous" in body["messages"][-1]["content"] else "<teaching>Look harder.</teaching>"


def reflection(body: dict[str, Any]) -> str:
    return edit("teacher_adaptive_template", f"Be {('generous', 'brief', 'polite')[sum(map(ord, json.dumps(body))) % 3]} with words.")


@pytest.fixture(scope="module")
def town(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    room = tmp_path_factory.mktemp("town")
    with ExitStack() as stack:
        schools = {who: stack.enter_context(opened(School(student, teacher, reflection))) for who in ("student", "teacher", "reflection")}
        agents = {"student": schools["student"].agent(), "teacher": schools["teacher"].model("teacher")}
        config = write(room, agents=agents, reflection_lm=schools["reflection"].model("reflection"), max_metric_calls=120)
        ended = Town(stage, schools, config).optimize(room / "whole")
        assert ended.code == 0, ended
        yield Town(stage, schools, config, digest(room / "whole"), tuple((who, len(s.sent[who])) for who, s in schools.items()))


def from_call(number: int, status: int) -> Callable[[dict[str, Any]], int | None]:
    count = itertools.count(1)
    return lambda body: status if next(count) >= number else None


@pytest.mark.parametrize("draw", range(12))
def test_the_result_is_that_of_an_undisturbed_run(town: Town, room: Path, draw: int) -> None:
    """Any endpoint, any moment, any concurrency, any way of being away; twice in some runs."""
    random_ = random.Random(draw)
    who, calls = town.calls[draw % 3]
    school, concurrency = town.schools[who], (1, 3, 16)[draw // 3 % 3]
    school.sent[who].clear()
    try:
        for _ in range(random_.choice((1, 2))):
            left = calls - len(school.sent[who])
            if left < 3:
                break
            school.fault = from_call(random_.randrange(2, left), random_.choice((0, 500, 503, 401, 404)))
            ended = town.optimize(room / "run", concurrency, random_.choice((1, 1, 2, 3)), random_.choice((4, 12, 20)))
            assert ended.code == 75 and "run the same command again to resume" in ended.line, ended
    finally:
        school.fault = lambda body: None
    assert town.optimize(room / "run", concurrency).code == 0
    assert digest(room / "run") == town.digest
    assert len(school.sent[who]) <= calls + 2 * concurrency, "what was answered is not asked again, unless it was under way at the end"


@pytest.mark.parametrize(("status", "concurrency"), [(500, 1), (500, 16), (404, 1), (404, 16), (400, 1)])
def test_one_request_that_cannot_be_answered_is_a_lesson_without_a_score(town: Town, room: Path, status: int, concurrency: int) -> None:
    """Though it is the only one that is asked: the run finds out by a request that was answered before."""
    school = town.schools["student"]
    school.sent["student"].clear()
    odd = []

    def fault(body: dict[str, Any]) -> int | None:
        odd.extend(["box 17?"] if "box 17?" in body["prompt"] else [])
        return status if "box 17?" in body["prompt"] else None

    school.fault = fault
    try:
        assert town.optimize(room / "run", concurrency).code == 0
    finally:
        school.fault = lambda body: None
    lessons = [json.loads(line) for line in (room / "run" / "traces.jsonl").read_text().splitlines()]
    failed = [lesson for lesson in lessons if lesson["delta"] is None]
    assert failed and {lesson["example"]["id"] for lesson in failed} == {"x17"}
    assert all(str(status) in lesson["before"]["missing"]["reason"] for lesson in failed)
    requests = len({json.dumps(body) for body in school.sent["student"]})
    assert len(school.sent["student"]) <= requests + len(odd), "one probe for an attempt at most"
    assert rollouts(room / "run") <= 120
