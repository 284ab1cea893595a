"""A training run's directory with a hand-off written by hand, so that each stage can be run on its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
STUDENTS = Path(__file__).with_name("students.py")
TEXTS = ("Add them.", "Subtract them.", "Multiply them.", "Be brief.")
SEED, EVOLVED = "Say how.", "Say how. Be brief."


def config(student: str = f"{ROOT}/agents/reckoner.py:answer", judge: Any = "exact", **sections: Any) -> TrainConfig:
    """A tiny model, all weights trained, a few steps; `sections` are merged in."""
    given: dict[str, Any] = {
        "student": {"provider": "python.callable", "params": {"callable": student, "guidance": "field"}},
        "rim": [judge],
        "handoff": {"teacher": {"system": "{prompt}", "user": "{question}"}},
        "model": {"source": "tiny", "context": 96, "lora": None, "tiny": {"pretrain_steps": 30, "hidden": 32, "heads": 2, "layers": 1}},
        "baseline": {"samples": 2},
        "reward": {"retries": 0},
        "sft": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 4},
        "grpo": {
            "max_steps": 4, "batch_size": 8, "num_generations": 4, "max_completion_length": 8, "learning_rate": 1e-3, "save_steps": 2,
        },
        "guards": {"kl_max": 50.0, "judge_backoff_s": []},
        "eval": {"samples": 2},
    }  # fmt: skip
    for name, value in sections.items():
        given[name] = {**given[name], **value} if isinstance(given.get(name), dict) and isinstance(value, dict) else value
    return TrainConfig.model_validate(given)


GRADED = {"student": f"{STUDENTS}:graded", "judge": {"type": "python", "function": f"{STUDENTS}:read"}}


def workspace(tmp_path: Path, stage: str) -> Workspace:
    work = Workspace(tmp_path / "out", stage, 0, tmp_path)
    work.folder.mkdir(parents=True, exist_ok=True)
    return work


def handoff(tmp_path: Path, tasks: int = 6) -> None:
    """`tasks` tasks a split, two candidates, and one good lesson for each of the first train tasks."""
    work = workspace(tmp_path, "export")
    kinds = (("total", "Add them."), ("gap", "Subtract them."), ("area", "Multiply them."))
    rows = []
    for split in ("train", "val", "test"):
        for at in range(tasks):
            kind, text = kinds[at % 3]
            a, b = 3 + at, {"train": 2, "val": 4, "test": 5}[split]
            answer = {"total": a + b, "gap": abs(a - b), "area": a * b}[kind]
            question = f"Find the {kind} of {a} and {b}"
            rows.append((split, f"{split}-{at}", question, str(answer), text))
    write(work.folder / "tasks.jsonl", ({"task_id": i, "split": s, "question": q, "answers": [a]} for s, i, q, a, _ in rows))
    prompts = [prompt("seed", SEED, False), prompt("best", EVOLVED, True), *(prompt("", text, text == TEXTS[0]) for text in TEXTS)]
    write(work.folder / "prompts.jsonl", prompts)
    turns = {i: [{"role": "system", "content": EVOLVED}, {"role": "user", "content": q}] for _, i, q, _, _ in rows}
    for split in ("train", "val"):
        row = {"baseline_reward": None, "baseline_n": 0, "prompt_hash": "sha256:0", "weight": 1.0, "privileged_context": ""}
        write(work.folder / f"grpo_{split}.jsonl", ({"prompt": turns[i], "task_id": i, **row} for s, i, *_ in rows if s == split))
    best = [(i, text) for s, i, _, _, text in rows if s == "train"]
    write(
        work.folder / "sft.jsonl",
        ({"prompt": turns[i], "completion": [{"role": "assistant", "content": t}], "task_id": i, "trace_id": None} for i, t in best),
    )
    done(work)


def prompt(role: str, text: str, pareto: bool) -> dict[str, Any]:
    return {"role": role, "system": text, "texts": {"guidance": text}, "demos_json": "[]", "settings_json": "{}", "pareto": pareto}


def done(work: Workspace) -> None:
    """Say that a stage has ended well, as the runner would."""
    record = {
        "stage": work.stage, "status": "done", "inputs": {}, "config_sha256": "", "outputs": {}, "figures": {}, "seed": 0, "versions": {},
        "started": "", "ended": "",
    }  # fmt: skip
    work.record_path(work.stage).write_text(json.dumps(record))


def write(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
