"""What the trainee is asked in every stage: the system prompt of a candidate, the task, and the student's first attempt of the baseline.

The hand-off writes its rows before anybody knows that attempt for each task, so the user message is made here, the same way for SFT, GRPO
and the evaluation; system prompts are those of the hand-off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.handoff.prompts import Turn, messages, task_prompt
from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.train.baseline import Baseline
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.school import read_rows
from gepa_atlas.types import Candidate, Demo, Example


@dataclass(frozen=True)
class Prompts:
    """The system prompts of the optimization run. `front` are those of the Pareto front, the evolved one first."""

    seed: str
    evolved: str
    front: tuple[str, ...]
    candidate: Candidate  # the evolved texts, for protocols that put some of them before the student


def prompts_of(work: Workspace, config: TrainConfig) -> Prompts:
    rows = read_rows(work.folder_of("export") / "prompts.jsonl")
    named = {name: row for row in rows for name in row["role"].split(" and ") if name}
    if "seed" not in named or "best" not in named:
        raise ConfigError(f"{work.folder_of('export')}/prompts.jsonl: no seed and best prompt in it; run `gepa-atlas grpo export` again")
    best = named[config.handoff.prompt]
    front = [best["system"], *(row["system"] for row in rows if row["pareto"])]
    demos = tuple(Demo.from_json(demo) for demo in json.loads(best["demos_json"]))
    candidate = Candidate.of(best["texts"], demos, json.loads(best["settings_json"]))
    return Prompts(named["seed"]["system"], best["system"], tuple(dict.fromkeys(front)), candidate)


def asked(row: Mapping[str, Any], tasks: Mapping[str, Example], baselines: Mapping[str, Baseline], config: TrainConfig) -> list[Turn]:
    """The prompt of a row of the hand-off, with the student's first attempt as the baseline found it."""
    system = next((turn["content"] for turn in row["prompt"] if turn["role"] == "system"), "")
    task, baseline = tasks.get(row["task_id"]), baselines.get(row["task_id"])
    if task is None or baseline is None:
        return list(row["prompt"])
    return task_prompt(system, task, baseline.attempt, config.handoff.teacher)


def with_system(prompt: Sequence[Turn], system: str) -> list[Turn]:
    """The same user message under another system prompt (none where it is empty)."""
    return messages(system, next(turn["content"] for turn in prompt if turn["role"] == "user"))


def check_lengths(tokenizer: Any, prompts: Mapping[str, Sequence[Turn]], room: int, context: int) -> int:
    """Tokens of the longest prompt. Raises ConfigError where one and `room` tokens of completion do not fit the context: nothing is cut."""
    longest = 0
    for name, prompt in prompts.items():
        ids = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=True)["input_ids"]
        longest = max(longest, len(ids))
        if len(ids) + room > context:
            raise ConfigError(
                f"model.context: the prompt of task {name!r} has {len(ids)} tokens, and with {room} for the completion it does not fit "
                f"{context}; raise model.context, lower grpo.max_completion_length, or take a shorter prompt (handoff.prompt)"
            )
    return longest
