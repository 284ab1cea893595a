"""From a line of traces.jsonl to what selection needs of it, and to the record that is exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gepa_atlas.handoff.contamination import Held
from gepa_atlas.handoff.evidence import Base, Evidence, Fact
from gepa_atlas.handoff.leaks import leaks
from gepa_atlas.handoff.lines import Line, extra, trace_id
from gepa_atlas.handoff.prompts import TeacherFormat, completion, guidance_of, is_text, user_message, written
from gepa_atlas.handoff.review import state_of
from gepa_atlas.handoff.schema import Baseline, JudgeScore, RimResult, TraceRecord, Turn
from gepa_atlas.handoff.source import Source
from gepa_atlas.types import Candidate, Example, digest

_OWN = ("run_id", "review_status", "tokens")  # further fields of a lesson that the record has a place for


def fact_of(line: Line, task: Example, held: Held) -> Fact:
    protocol = line["protocol"]
    guidance, attempt = guidance_of(line["guidance"]), line["baseline"]["output"]
    before, after = line["before"], line["after"]
    return Fact(
        trace_id(line),
        task.id,
        task.split,
        line["candidate"],
        digest(line["guidance"], 16),
        "" if attempt is None else digest([line.get("run_id", ""), attempt], 16),
        before["value"],
        after["value"],
        float(before.get("uncertainty") or 0.0),
        float(after.get("uncertainty") or 0.0),
        line["second"].get("stop") == "length",
        is_text(guidance),
        leaks(guidance, task, attempt, protocol),
        not written(guidance).strip(),
        task.split == "train" and bool(held.repeated(written(guidance))),
        len(written(guidance).split()),
    )


@dataclass(frozen=True)
class Maker:
    """Makes records of one source."""

    source: Source
    evidence: Evidence
    how: TeacherFormat

    def record(self, line: Line) -> TraceRecord:
        source, task = self.source, self.source.tasks[line["example"]["id"]]
        member = source.members.get(line["candidate"])
        guidance, attempt = guidance_of(line["guidance"]), line["baseline"]["output"]
        models = source.run.get("models", {})
        stop = line["second"].get("stop") or ""
        return TraceRecord(
            trace_id=trace_id(line),
            run_id=str(source.run.get("run_id") or line.get("run_id") or ""),
            candidate_id=line["candidate"],
            generation=member.generation if member and source.kind == "run" else None,
            prompt_hash=prompt_hash(member.candidate) if member else "",
            parent_hashes=self.parents(member.candidate) if member else [],
            task_id=task.id,
            task_hash=f"sha256:{digest([task.question, task.context])}",
            split=task.split,
            protocol=line["protocol"],
            sample=line["sample"],
            messages=[Turn(role="user", content=user_message(task.question, task.context, attempt, self.how))],
            teacher_completion=completion(guidance, line["protocol"], line.get("support", "")),
            student_baseline=attempt,
            student_taught=line["second"]["output"],
            rim=rim_of(line["after"]),
            rim_before=rim_of(line["before"]),
            baseline=self.baseline(self.evidence.bases[task.id]),
            delta=line["delta"],
            delta_low=self.delta_low(line),
            usage_json=_dumped(line["second"].get("usage", {})),
            teacher_usage_json=_dumped(line.get("teacher_usage", {})),
            finish_reason=stop,
            truncated=stop == "length",
            student_model=models.get("student", ""),
            teacher_model=models.get("teacher", ""),
            tokens=line.get("tokens"),
            review=state_of(line),
            redactions=0,
            extra_json=_dumped(self.extra(line)),
        )

    def parents(self, candidate: Candidate) -> list[str]:
        known = self.source.members
        return [prompt_hash(known[name].candidate) for name in candidate.parents if name in known]

    def baseline(self, base: Base) -> Baseline:
        return Baseline(mean=base.mean, std=base.std, n=base.n, student_hash=self.student_hash)

    @property
    def student_hash(self) -> str:
        return str(self.source.run.get("fingerprints", {}).get("student", ""))

    def delta_low(self, line: Line) -> float | None:
        """Of this lesson alone, without its repeats."""
        before, after = line["before"]["value"], line["after"]["value"]
        if before is None or after is None:
            return None
        base = self.evidence.bases[line["example"]["id"]]
        assert base.mean is not None
        doubt = float(line["after"].get("uncertainty") or 0.0)
        return round(float(after) - base.mean - self.evidence.z * self.evidence.error(base, 1, doubt), 9)

    @staticmethod
    def extra(line: Line) -> Mapping[str, Any]:
        """What has no field of its own: requests, messages of both attempts, reasons of failure, and fields of later formats."""
        found: dict[str, Any] = {name: value for name, value in extra(line).items() if name not in _OWN}
        for name in ("baseline", "second"):
            rest = {key: line[name][key] for key in ("messages", "error") if line[name].get(key)}
            if rest:
                found[name] = rest
        tags = {key: line["example"][key] for key in ("tags", "spec") if line["example"].get(key)}
        return found | ({"example": tags} if tags else {}) | ({"requests": line["requests"]} if line.get("requests") else {})


def prompt_hash(candidate: Candidate) -> str:
    return f"sha256:{digest(candidate.content())}"


def rim_of(reward: Line) -> RimResult:
    judges = [
        JudgeScore(
            judge=part["judge"],
            score=part["value"],
            uncertainty=part.get("uncertainty"),
            rationale=part.get("rationale") or "",
            status="failed" if part["value"] is None else "ok",
        )
        for part in reward.get("parts", ())
    ]
    missing = reward.get("missing") or {}
    partly = any(judge.score is None for judge in judges)
    return RimResult(
        score=reward["value"],
        uncertainty=reward.get("uncertainty"),
        judges=judges,
        status="failed" if reward["value"] is None else "partial" if partly else "ok",
        why=missing.get("kind", "") if reward["value"] is None else "",
    )


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
