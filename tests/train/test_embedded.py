"""The packaged model as weights to train and as the student of a training run. Minutes and 600 MB, so only when asked for:

GEPA_ATLAS_EMBEDDED=1 python -m pytest tests/train/test_embedded.py
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.llm.local import LocalModel, stop
from gepa_atlas.ports import ChatRequest
from gepa_atlas.train import weights
from gepa_atlas.train.config import TrainConfig
from tests.train import room

pytestmark = [
    pytest.mark.local,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("GEPA_ATLAS_EMBEDDED"), reason="takes minutes: set GEPA_ATLAS_EMBEDDED=1 to run it"),
    pytest.mark.timeout(1800),
]

PROMPTS = (
    "The capital of France is", "1, 2, 3, 4,", "def add(a, b):\n    return", "Q: Is the sky blue? A:", "Once upon a time, there was a",
    "The order number in 'VT-41189 please' is", "Translate to French: good morning ->", "To make bread you need flour, water and",
    "{\"name\": \"Ada\", \"age\":", "  two  spaces, ünïcode 中文 and a tab\t:",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    weights.quiet()
    config = TrainConfig.model_validate({"model": {"source": "embedded", "lora": None}})
    base = weights.base_folder(room.workspace(tmp_path_factory.mktemp("embedded"), "train"), config)
    assert _total(base) > 500_000_000
    yield weights.load_base(base, config.model).eval(), weights.load_tokenizer(base, config.model)
    stop()


def _total(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_the_next_word_is_as_likely_as_in_llama_cpp(model: tuple[Any, Any]) -> None:
    """KL over the 100 likeliest words. Greedy texts are not compared: llama.cpp rounds activations, and near-ties fall the other way."""
    import torch

    trained, tokenizer = model
    names: dict[str, int] = {}
    for token in range(len(tokenizer)):
        names.setdefault(tokenizer.decode([token]), token)
    local = LocalModel()
    values, agree = [], 0
    for prompt in PROMPTS:
        answer = asyncio.run(local.complete(ChatRequest(prompt=prompt, max_tokens=1, top_logprobs=100)))
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        assert answer.usage.input_tokens == ids.shape[1], "as many tokens as llama.cpp counts"
        with torch.no_grad():
            ours = trained(input_ids=ids).logits[0, -1].log_softmax(-1)
        theirs = {names[text]: log for text, log in answer.logprobs if text in names}
        assert len(theirs) > 80
        values.append(sum(math.exp(log) * (log - float(ours[token])) for token, log in theirs.items()))
        agree += int(ours.argmax()) == max(theirs, key=theirs.__getitem__)
    assert sum(values) / len(values) < 0.03, values
    assert agree >= 7


def test_the_quickstart_goes_all_the_way_to_a_decision(tmp_path: Path) -> None:
    """The documented sequence as it stands: search, lessons, training, the ship gate."""
    page = (room.ROOT / "docs" / "training.md").read_text("utf-8")
    block = re.search(r"^```text\n(gepa-atlas optimize configs/examples/quickstart.yaml\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    (tmp_path / "configs").symlink_to(room.ROOT / "configs")
    for line in block[1].splitlines():
        program, *argv = shlex.split(line)
        done = subprocess.run([Path(sys.executable).with_name(program), *argv], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    report = json.loads((tmp_path / "runs/quickstart-grpo/grpo_report.json").read_text())
    assert report["verdict"] == "pass" and report["gain_low"] > 0.3 and report["n_tasks"] == 40
