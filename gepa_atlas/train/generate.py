"""The trainee writes guidance for many prompts: batches, padded on the left, reproducible for one seed."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gepa_atlas.handoff.prompts import Turn


@dataclass(frozen=True, slots=True)
class Written:
    """One completion. confidence: geometric mean of the probabilities of its tokens; seconds: its share of the batch's time."""

    text: str
    tokens: int
    finished: bool  # False: cut at the limit
    confidence: float
    seconds: float


def write(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Turn]],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int,
    done: Callable[[int], None] = lambda count: None,
) -> list[Written]:
    """One completion a prompt, in order. temperature 0 is greedy."""
    torch: Any = importlib.import_module("torch")
    model.eval()
    found: list[Written] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch_size):
            found += _batch(model, tokenizer, prompts[start : start + batch_size], max_tokens, temperature)
            done(len(found))
    return found


def _batch(model: Any, tokenizer: Any, prompts: Sequence[Sequence[Turn]], max_tokens: int, temperature: float) -> list[Written]:
    torch: Any = importlib.import_module("torch")
    began = time.perf_counter()
    texts = [tokenizer.apply_chat_template(list(p), add_generation_prompt=True, tokenize=False) for p in prompts]
    ids = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False).to(model.device)
    how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        how = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    with torch.inference_mode():
        made = model.generate(
            **ids, **how, max_new_tokens=max_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    size = ids["input_ids"].shape[1]
    new = made.sequences[:, size:]
    chances = torch.stack(made.logits, 1).float().log_softmax(-1).gather(-1, new.unsqueeze(-1)).squeeze(-1)
    seconds = (time.perf_counter() - began) / len(prompts)
    return [_written(tokenizer, row, logs, seconds) for row, logs in zip(new.tolist(), chances.tolist(), strict=True)]


def _written(tokenizer: Any, ids: list[int], logs: list[float], seconds: float) -> Written:
    finished = tokenizer.eos_token_id in ids
    count = ids.index(tokenizer.eos_token_id) + 1 if finished else len(ids)
    confidence = math.exp(sum(logs[:count]) / count) if count else 0.0
    return Written(tokenizer.decode(ids[:count], skip_special_tokens=True).strip(), count, finished, confidence, seconds)
