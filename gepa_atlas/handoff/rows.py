"""The rows of every set, made from what was chosen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gepa_atlas.data import SPLITS
from gepa_atlas.handoff.config import ExportConfig
from gepa_atlas.handoff.evidence import Base, Evidence, Played
from gepa_atlas.handoff.leaks import leaks
from gepa_atlas.handoff.prompts import completion, is_text, messages, system_prompt, user_message, written
from gepa_atlas.handoff.records import prompt_hash
from gepa_atlas.handoff.schema import BaselineRow, DpoRow, GrpoRow, KtoRow, PromptRow, SftRow, TaskRow, Turn
from gepa_atlas.handoff.selection import Pair
from gepa_atlas.handoff.source import Member, Source
from gepa_atlas.protocols.playbook import GUIDANCE
from gepa_atlas.types import Candidate, Example, Guidance, digest

_NOTHING = Base(None, None, 0, 0.0)


def at_task(played: Played, guidance: Guidance, task: Example, contaminated: bool) -> Played:
    """A candidate's guidance at a task it was not played at."""
    leak, words = leaks(guidance, task, None, "playbook"), len(written(guidance).split())
    return replace(played, leak=leak, text=is_text(guidance), empty=words == 0, contaminated=contaminated, words=words)


def playbook(candidate: Candidate) -> Guidance:
    """What a student gets of this candidate under `playbook`: its text, or of an agent that is made of texts, those texts."""
    texts = dict(candidate.texts)
    if texts.keys() == {GUIDANCE}:
        return Guidance(texts[GUIDANCE], candidate.demos, candidate.settings)
    return Guidance("", candidate.demos, candidate.settings, candidate.texts)


@dataclass
class Rows:
    """Makes rows. `completions` is filled while traces.jsonl is written: trace id -> what the teacher wrote."""

    source: Source
    config: ExportConfig
    evidence: Evidence
    attempts: Mapping[str, str]
    completions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.best_id = self.source.best_id or self._best()
        self.chosen = self.source.members[self.best_id if self.config.prompt == "best" else self.source.seed_id]
        self.system = self.system_of(self.chosen.candidate)

    def _best(self) -> str:
        """Where no run says who is best: who did best on val by the lower bound, else the seed."""
        standings = self.evidence.standings
        known = [name for name in standings if name in self.source.members and standings[name].delta_low > 0]
        return min(known, key=lambda name: (-standings[name].delta_low, name), default=self.source.seed_id)

    def system_of(self, candidate: Candidate) -> str:
        return system_prompt(candidate, self.source.protocol, self.config.teacher)

    def lineage(self) -> dict[str, Any]:
        """The prompt that is used, and where it comes from."""
        waiting, seen = [self.chosen.id], dict[str, Member]()
        while waiting:
            name = waiting.pop(0)
            if name in self.source.members and name not in seen:
                seen[name] = self.source.members[name]
                waiting += seen[name].candidate.parents
        steps = [
            {"candidate_id": m.id, "origin": m.candidate.origin, "parents": list(m.candidate.parents), "generation": m.generation}
            for m in seen.values()
        ]
        return {"candidate_id": self.chosen.id, "prompt_hash": prompt_hash(self.chosen.candidate), "lineage": steps}

    # -- prompts ------------------------------------------------------------------------------------------------------

    def prompt(self, task_id: str) -> list[Turn]:
        """What the teacher is asked about a task. In mode `distil` it reads no evolved prompt."""
        task = self.source.tasks[task_id]
        system = "" if self.config.prompt_mode == "distil" else self.system
        user = user_message(task.question, task.context, self.attempts.get(task_id), self.config.teacher)
        return [Turn.model_validate(turn) for turn in messages(system, user)]

    def prompts(self) -> Iterator[PromptRow]:
        source, matrix = self.source, self.evidence.matrix
        for name in sorted(source.members, key=lambda n: (source.members[n].generation, n)):
            member = source.members[name]
            standing = self.evidence.standings.get(name)
            scores = {task: round(row[name], 9) for task, row in sorted(matrix.items()) if name in row}
            yield PromptRow(
                prompt_hash=prompt_hash(member.candidate),
                candidate_id=name,
                system=self.system_of(member.candidate),
                texts=dict(member.candidate.texts),
                demos_json=_dumped([demo.to_json() for demo in member.candidate.demos]),
                settings_json=_dumped(dict(member.candidate.settings)),
                parent_hashes=[prompt_hash(source.members[p].candidate) for p in member.candidate.parents if p in source.members],
                origin=member.candidate.origin,
                generation=member.generation,
                pareto=name in source.front,
                role=self.role(name),
                val_delta=round(standing.delta, 9) if standing else None,
                val_delta_low=round(standing.delta_low, 9) if standing else None,
                val_tasks=standing.tasks if standing else 0,
                scores_json=_dumped(scores),
            )

    def role(self, name: str) -> Literal["seed", "best", "seed and best", ""]:
        seed, best = name == self.source.seed_id, name == self.best_id
        return "seed and best" if seed and best else "seed" if seed else "best" if best else ""

    # -- tasks --------------------------------------------------------------------------------------------------------

    def tasks(self) -> Iterator[TaskRow]:
        """All three splits, each in the order of the run."""
        for split in SPLITS:
            for task in self.source.tasks.values():
                if task.split == split:
                    yield TaskRow(
                        task_id=task.id,
                        split=split,
                        question=task.question,
                        context=task.context,
                        answers=list(task.answers),
                        spec=task.spec,
                    )

    def baselines(self) -> Iterator[BaselineRow]:
        """Tasks whose baseline was judged in the run; test has none here."""
        student = str(self.source.run.get("fingerprints", {}).get("student", ""))
        for task_id, base in self.evidence.bases.items():
            split = self.source.tasks[task_id].split
            if base.n and (split != "val" or self.config.include_val):
                yield BaselineRow(
                    task_id=task_id,
                    split=split,
                    mean=base.mean,
                    std=base.std,
                    n=base.n,
                    uncertainty=base.sd,
                    student_hash=student,
                    attempt=self.attempts.get(task_id),
                )

    # -- training sets ------------------------------------------------------------------------------------------------

    def sft(self, lessons: Sequence[Played], candidates: Sequence[Played]) -> Iterator[SftRow]:
        for one in lessons:
            yield self._sft(one, self.completions[one.trace_id], "lesson")
        for one in candidates:
            text = completion(playbook(self.source.members[one.candidate_id].candidate), "playbook")
            yield self._sft(one, text, "candidate")

    def _sft(self, one: Played, text: str, evidence: Literal["lesson", "candidate"]) -> SftRow:
        return SftRow(
            prompt=self.prompt(one.task_id),
            completion=_said(text),
            task_id=one.task_id,
            trace_id=one.trace_id or None,
            candidate_id=one.candidate_id,
            delta=round(one.delta, 9),
            delta_low=round(one.delta_low, 9),
            evidence=evidence,
            attempt_known=one.task_id in self.attempts,
        )

    def dpo(self, pairs: Iterable[Pair]) -> Iterator[DpoRow]:
        for pair in pairs:
            yield DpoRow(
                prompt=self.prompt(pair.chosen.task_id),
                chosen=_said(self.completions[pair.chosen.trace_id]),
                rejected=_said(self.completions[pair.rejected.trace_id]),
                task_id=pair.chosen.task_id,
                chosen_trace_id=pair.chosen.trace_id,
                rejected_trace_id=pair.rejected.trace_id,
                gap=round(pair.gap, 9),
            )

    def kto(self, labelled: Iterable[tuple[Played, bool]]) -> Iterator[KtoRow]:
        for one, label in labelled:
            yield KtoRow(
                prompt=self.prompt(one.task_id),
                completion=_said(self.completions[one.trace_id]),
                label=label,
                task_id=one.task_id,
                trace_id=one.trace_id,
                delta=round(one.delta, 9),
            )

    def grpo(self, weights: Mapping[str, float]) -> Iterator[GrpoRow]:
        privileged = self.system if self.config.prompt_mode == "distil" else ""
        for task_id, weight in weights.items():
            base = self.evidence.bases.get(task_id, _NOTHING)
            yield GrpoRow(
                prompt=self.prompt(task_id),
                task_id=task_id,
                baseline_reward=base.mean,
                baseline_n=base.n,
                prompt_hash=f"sha256:{digest(self.system)}",
                weight=weight,
                privileged_context=privileged,
            )


def _said(text: str) -> list[Turn]:
    return [Turn(role="assistant", content=text)]


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
