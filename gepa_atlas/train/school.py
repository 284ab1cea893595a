"""The frozen student and its judges, as a stage of training meets them: what a piece of guidance was worth, asked once and kept on disk.

All calls go through one door on one event loop of their own, so that a trainer's loop, a callback and a plain stage may all ask. Answers
are recorded below `cache/` of the training run: the same student, question, guidance and judges are never asked twice, also after a kill.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gepa_atlas.answers import given_away
from gepa_atlas.build import Models, protocol_for, student_of
from gepa_atlas.calls import Calls, MemoryTape, Tape
from gepa_atlas.classroom import secret
from gepa_atlas.config import AgentsConfig, AtlasConfig, Loaded, load_resolved
from gepa_atlas.data import DataConfig
from gepa_atlas.errors import AtlasError, BudgetExhausted, CallError, ConfigError, Outage
from gepa_atlas.handoff.prompts import read_completion
from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.lanes import Retry
from gepa_atlas.loops import LoopThread
from gepa_atlas.ports import Case, ChatRequest, Completion, Endpoint
from gepa_atlas.protocols.base import TeachingProtocol, keep
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.panel import Panel, build_panel
from gepa_atlas.settings import load
from gepa_atlas.store.run import Run
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.types import Attempt, Candidate, Example, Failure, Task, digest

OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of the student, judged. Either `reward` is in [0, 1] or `missing` says why there is none."""

    output: str | None
    reward: float | None
    missing: Failure | None = None
    tokens: int | None = None  # of the student's run; None where its connector reports none
    seconds: float = 0.0


@dataclass(frozen=True)
class Source:
    """Where student, judges and protocol come from: the optimization run, with what the training configuration names in their place."""

    loaded: Loaded
    rim: dict[str, Any]
    rim_dir: Path
    student_dir: Path


def source_of(work: Workspace, config: TrainConfig) -> Source:
    """Raises ConfigError when neither the configuration nor a run says who is taught."""
    run_dir = _run_dir(work, config)
    if run_dir is not None:
        loaded = load_resolved(run_dir)
    elif config.student is None:
        raise ConfigError(
            "student: the traces come without the configuration of a run (config.json beside them), so name who is taught: "
            "student: {provider: ..., params: {...}}"
        )
    else:
        data = DataConfig(path="tasks.jsonl")  # never read: the tasks are in the hand-off
        loaded = Loaded(AtlasConfig(agents=AgentsConfig(student=config.student), data=data), work.base_dir / "-", work.base_dir, {})
    student_dir = loaded.base_dir
    if config.student is not None:
        agents = loaded.config.agents.model_copy(update={"student": config.student})
        loaded, student_dir = replace(loaded, config=loaded.config.model_copy(update={"agents": agents})), work.base_dir
    given = config.rim if config.rim is not None else loaded.config.rim or {"judges": ["exact"]}
    return Source(loaded, given, work.base_dir if config.rim is not None else loaded.base_dir, student_dir)


def _run_dir(work: Workspace, config: TrainConfig) -> Path | None:
    if config.handoff.path is None:
        return None
    path = work.input_path(config.handoff.path)
    folder = path if path.is_dir() else path.parent
    return folder if (folder / "config.json").is_file() else None


@dataclass(frozen=True)
class _Said:
    """A teacher that says what the trainee wrote."""

    text: str
    identity: str = "trainee"
    endpoint: Endpoint = field(default_factory=lambda: Endpoint("trainee"))

    async def complete(self, request: ChatRequest) -> Completion:
        return Completion(self.text)


class School:
    """Student, panel and protocol of one stage. Close it, or use it in a `with` block.

    candidate: the evolved texts, of which a protocol puts those that are the student's around the guidance.
    part: names the record on disk where several processes train at once; each has its own.
    Raises ConfigError, MissingExtra, RunBusy.
    """

    def __init__(self, work: Workspace, config: TrainConfig, candidate: Candidate | None = None, part: int = 0) -> None:
        self._source, self._work = source_of(work, config), work
        self._reward = config.reward
        self._directory = work.cache_dir / (f"answers-{part}" if part else "answers") if config.reward.cache else None
        self._candidate = candidate
        self.loop = LoopThread("school", "this school was closed; open a new one")
        self._tape: Tape | None = None
        try:
            self.loop.wait(self._open())
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        source, reward = self._source, self._reward
        if self._directory is not None:
            self._tape = Run.open(self._directory, manifest={"answers": "1"}, config={})
        retry = Retry(attempts=reward.retries + 1, timeouts=reward.retries + 1)
        self.calls = Calls(self._tape or MemoryTape(), concurrency=reward.concurrency, retry=retry)
        models = Models(source.loaded, self.calls)
        placed = replace(source.loaded, path=source.student_dir / "-", base_dir=source.student_dir)
        self.student = self.calls.agent(student_of(placed, models))
        self.panel = _panel(source.rim, models, source.rim_dir, "rim")
        self.holdout = None if reward.holdout is None else _panel(reward.holdout, models, self._work.base_dir, "reward.holdout")
        self._places = asyncio.Semaphore(2 * reward.concurrency)

    async def start_again(self) -> None:
        """Forget which endpoints were down and which calls failed; what was answered stays. On the school's own loop."""
        await self._shut()
        await self._open()

    async def _shut(self) -> None:
        tape, self._tape = self._tape, None
        if tape is not None:
            await self.calls.finish()
            assert isinstance(tape, Run)
            tape.close()

    def close(self) -> None:
        try:
            if self._tape is not None:
                self.loop.wait(self._shut())
        finally:
            self.loop.close()

    def __enter__(self) -> School:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def identity(self) -> dict[str, str]:
        """Hashes of everything that can change a reward."""
        protocol = self._source.loaded.config.protocol
        found = {"student": digest(self.student.identity), "rim": self.panel.identity, "protocol": digest(protocol)}
        return found | ({"holdout": self.holdout.identity} if self.holdout is not None else {})

    def leaks(self, example: Example, attempt: str | None, completion: str) -> bool:
        """Whether a completion gives the answer of its task away."""
        return gives_away(example, attempt, completion, self._labels)

    @cached_property
    def _labels(self) -> frozenset[str]:
        return labels_of(list(tasks_of(self._work).values()))

    # -- asking ---------------------------------------------------------------------------------------------------------

    async def alone(self, example: Example, sample: int = 0) -> Outcome:
        """The student without guidance."""
        protocol = self._protocol("")
        return await self._attempted(example, replace(protocol.baseline(example.public()), sample=sample), protocol, self.panel)

    async def taught(self, example: Example, attempt: str | None, completion: str, sample: int = 0) -> Outcome:
        """The student with what the trainee wrote, delivered as the run's protocol does; where it states the gold answer it is masked."""
        return await self._taught(example, attempt, completion, sample, self.panel)

    async def taught_held_out(self, example: Example, attempt: str | None, completion: str, sample: int = 0) -> Outcome:
        """The same answer in the eyes of the judges that no training reward comes from (`reward.holdout`)."""
        assert self.holdout is not None
        return await self._taught(example, attempt, completion, sample, self.holdout)

    async def answered(self, example: Example, output: str) -> Outcome:
        """An answer that somebody else gave, in the eyes of the judges."""
        reward = await self.panel.score(Case(example, output))
        return Outcome(output, reward.value, reward.missing)

    async def _taught(self, example: Example, attempt: str | None, completion: str, sample: int, panel: Panel) -> Outcome:
        protocol = self._protocol(completion)
        if protocol.name == "playbook":
            guidance = read_completion(completion)
            text = secret(example)(guidance.text, (attempt or "",)) if self.leaks(example, attempt, completion) else guidance.text
            return await self._attempted(example, Task(example.public(), replace(guidance, text=text), sample), protocol, panel)
        first = Attempt("" if attempt is None else attempt)
        assert self._candidate is not None
        withhold = secret(example) if self.leaks(example, attempt, completion) else keep
        try:
            prepared = await self._within(protocol.prepare(self._candidate, example.public(), first, sample, withhold))
        except (CallError, Outage) as error:
            return _failed(error)
        if prepared.failure is not None:
            return Outcome(None, None, prepared.failure)
        return await self._attempted(example, prepared.task, protocol, panel)

    async def _attempted(self, example: Example, task: Task, protocol: TeachingProtocol, panel: Panel) -> Outcome:
        async with self._places:
            try:
                outcome: Outcome = await self._within(self._judged(example, task, protocol, panel))
                return outcome
            except (CallError, BudgetExhausted, Outage) as error:
                return _failed(error)

    async def _judged(self, example: Example, task: Task, protocol: TeachingProtocol, panel: Panel) -> Outcome:
        attempt = await self.student.run(task)
        assert attempt.output is not None
        reward = await panel.score(Case(example, protocol.answer(attempt.output)))
        return Outcome(attempt.output, reward.value, reward.missing, attempt.usage.tokens, attempt.usage.seconds)

    async def _within(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(self._reward.timeout_s) as clock:
                return await work
        except TimeoutError:
            if not clock.expired():
                raise
            raise CallError(f"no judged answer within reward.timeout_s = {self._reward.timeout_s:g} s") from None

    def _protocol(self, completion: str) -> TeachingProtocol:
        return protocol_for(self._source.loaded.config, _Said(completion), self.student)


def _failed(error: AtlasError) -> Outcome:
    kind = OUTAGE if isinstance(error, Outage) else error.kind if isinstance(error, CallError | BudgetExhausted) else "failed"
    return Outcome(None, None, Failure(kind, str(error)))


def _panel(rim: dict[str, Any], models: Models, base_dir: Path, where: str) -> Panel:
    judging = load(RimConfig, rim, where)
    if judging.compare is not None:
        raise ConfigError(f"{where}.compare: rewards of training judge attempts one by one; remove it here")
    return build_panel(judging, model=models.judge, base_dir=base_dir)


def gives_away(example: Example, attempt: str | None, completion: str, labels: frozenset[str] = frozenset()) -> bool:
    """Whether a completion says the gold answer and the question or the attempt did not.

    labels: answers that many tasks share, in lower case. Guidance may name them together ("positive or negative"), not the right one alone.
    """
    if not given_away(completion, example.answers, (example.question, example.context, attempt or "")):
        return False
    own = {answer.casefold() for answer in example.answers}
    others = labels - own
    return not (own & labels and given_away(completion, tuple(others), ()))


def labels_of(tasks: Sequence[Example]) -> frozenset[str]:
    """Answers of at least three tasks and of one in fifty: those of a classification, where naming what there is to choose is no leak."""
    counted = Counter(answer for task in tasks for answer in {answer.casefold() for answer in task.answers})
    total = len(tasks)
    return frozenset(answer for answer, count in counted.items() if count >= max(3, total / 50))


# -- rows of the hand-off -------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A JSONL file that an earlier stage wrote. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); run the stage that writes it again") from None


def tasks_of(work: Workspace, splits: Sequence[str] = ("train", "val", "test")) -> dict[str, Example]:
    """The tasks of the hand-off by id, gold answers included: for judges and leak checks, never for a prompt."""
    rows = read_rows(work.folder_of("export") / "tasks.jsonl")
    return {row["task_id"]: example_of(row) for row in rows if row["split"] in splits}


def example_of(row: dict[str, Any]) -> Example:
    return Example(
        row["task_id"], row["question"], tuple(row["answers"]), row.get("context") or "", row["split"], (), row.get("spec") or ""
    )
