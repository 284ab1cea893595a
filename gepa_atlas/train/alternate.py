"""prompt_mode alternate: prompt, weights, prompt. What was trained becomes the teacher of a further search over prompts.

The weights are merged into one folder that the provider `huggingface` can load, and the stage says the command of the next search. Whether
it is worth running is for the gate to say, so nothing starts by itself.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.prompts import Prompts
from gepa_atlas.train.school import source_of

MERGED = "merged"
_TEMPLATE = "teacher_adaptive_template"
_ATTEMPT = "\n\nThe student's first attempt:\n{attempt}"


def merge(trained: Any, tokenizer: Any, folder: Path) -> Path:
    """The trained weights as one model in `folder`/merged."""
    target = folder / MERGED
    shutil.rmtree(target, ignore_errors=True)
    whole = trained.merge_and_unload() if "PeftModel" in {kind.__name__ for kind in type(trained).__mro__} else trained
    whole.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def command(work: Workspace, config: TrainConfig, prompts: Prompts, model: Path) -> str:
    """The search that goes on from here, as a line for a shell; empty where the run that was trained on has no configuration."""
    loaded = source_of(work, config).loaded
    if not loaded.resolved:
        return ""
    values: dict[str, Any] = {
        "agents.teacher.provider": "huggingface",
        "agents.teacher.params.model": str(model),
        "seed_prompts": _texts(loaded.config.protocol_name, config, prompts),
    }
    if loaded.config.protocol_name == "playbook":
        values = {"protocol.name": "lesson", **values}
    given = [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value, ensure_ascii=False)}")]
    return shlex.join(["gepa-atlas", "optimize", str(loaded.path), "--run-dir", str(work.folder / "next"), *given])


def _texts(protocol: str, config: TrainConfig, prompts: Prompts) -> dict[str, str]:
    """The evolved texts; where guidance itself was evolved, the two messages that the teacher was trained with, in one template."""
    if protocol != "playbook":
        return dict(prompts.candidate.texts)
    user = config.handoff.teacher.user
    return {_TEMPLATE: f"{prompts.evolved}\n\n{user}".strip() + ("" if "{attempt}" in user else _ATTEMPT)}
