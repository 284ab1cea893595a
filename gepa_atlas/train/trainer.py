"""trl's GRPO trainer with the guards that it lacks. Subclasses trl, so it is imported on first use only."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from gepa_atlas.errors import Outage, Unhealthy
from gepa_atlas.handoff.prompts import population_system
from gepa_atlas.handoff.workspace import Progress
from gepa_atlas.secrets import scrub_json
from gepa_atlas.train.config import GuardsConfig
from gepa_atlas.train.guards import no_signal, unhealthy
from gepa_atlas.train.prompts import with_system
from gepa_atlas.train.reward import Judged, RimDeltaReward


def no_harm(advantages: Any, judged: Sequence[Judged], anchor: float = 0.0) -> Any:
    """Advantages (one a completion) in which what harmed the student is never reinforced.

    Advantages are relative to the group: where every completion is worse than no guidance, the least harmful one has a positive one, so
    plain GRPO learns to harm a little. A loss beyond tau, and guidance that was refused, get at most 0. `anchor` adds that share of the
    reward itself, which also pushes a group down that is worse as a whole.
    """
    harmful = torch.tensor([row.harmful for row in judged], device=advantages.device)
    if anchor:
        own = torch.tensor([0.0 if row.value is None else row.value for row in judged], device=advantages.device)
        advantages = advantages + anchor * own
    return torch.where(harmful, advantages.clamp(max=0.0), advantages)


class NoHarmGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """reward: the one reward function. front: system prompts that take turns within a group (mode population); empty: each row's own.

    Raises Outage before an update that rests on too few scores; `save_before_outage` then keeps the state as the last full step left it.
    """

    def __init__(self, *, reward: RimDeltaReward, clamp: bool = True, anchor: float = 0.0, front: Sequence[str] = (), **given: Any) -> None:
        self._reward, self._clamp, self._anchor, self._front = reward, clamp, anchor, tuple(front)
        super().__init__(reward_funcs=[reward], **given)
        self._random = _random_state()

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self.model.training
        out: dict[str, Any] = super()._generate_and_score_completions(self._from_front(inputs) if training else inputs)
        out_of_order = torch.tensor([float(self._reward.outage is not None)], device=self.accelerator.device)
        if self.accelerator.gather(out_of_order).sum() > 0:
            raise Outage(self._reward.outage or "another process could not reach its student or judges")
        if training and self._clamp:
            before = out["advantages"]
            out["advantages"] = no_harm(before, self._reward.last, self._anchor)
            self._metrics["train"]["noharm/clamped"].append((before != out["advantages"]).float().mean().item())
        return out

    def _from_front(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not self._front:
            return inputs
        seen: dict[str, int] = {}
        rows = []
        for row in inputs:
            number = seen[row["task_id"]] = seen.get(row["task_id"], -1) + 1
            turn = number + self.state.global_step * self.num_generations
            system = population_system(self._front, row["task_id"], turn, self.args.seed)
            rows.append({**row, "prompt": with_system(row["prompt"], system)})
        return rows

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._random = _random_state()

    def save_before_outage(self) -> None:
        """A checkpoint of the last full step, random state included, from which a resumed run is the same to the bit."""
        if self.state.global_step:
            _restore_random(self._random)
            self._save_checkpoint(self.model, trial=None)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: it would name folders of this machine. The bundle has the card."""


def _random_state() -> tuple[Any, Any, Any, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _restore_random(state: tuple[Any, Any, Any, Any]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state_all(state[3])


class FiniteGradients(TrainerCallback):  # type: ignore[misc]
    """A step whose gradients are not finite changes nothing; after `limit` of them in a row training ends.

    Without gradients an optimizer leaves a parameter alone; zeros would still move it by its momentum and its decay.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.row = 0
        self.skipped = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        trained = [p for p in model.parameters() if p.grad is not None]
        broken = torch.tensor([float(any(not torch.isfinite(p.grad).all() for p in trained))], device=args.device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(broken)
        if broken.item() == 0:
            self.row = 0
            return
        for parameter in trained:
            parameter.grad = None
        self.row += 1
        self.skipped += 1
        if self.row >= self._limit:
            raise Unhealthy(
                f"nonfinite_gradients: the gradients of {self.row} steps in a row are not finite (guards.nonfinite_max); lower "
                "grpo.learning_rate, or take model.dtype float32"
            )


class RightReference(TrainerCallback):  # type: ignore[misc]
    """Before the first update the trained weights are the reference, so KL is 0. If not, training would be held to the wrong model."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.kl_step1: float | None = None
        self.trainer: NoHarmGRPOTrainer | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        seen = self.trainer._metrics["train"].get("kl")
        if state.global_step or not seen:
            return
        self.kl_step1 = max(map(abs, seen))
        if self.kl_step1 > self._limit:
            raise Unhealthy(
                f"wrong_reference: KL to the reference is {self.kl_step1:.3g} before the first update (guards.kl_step1 {self._limit:g}); "
                "the model that training is held to is not the one it starts from"
            )


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, shows progress, and ends training when a guard says so. `reason` says which."""

    def __init__(self, path: Path, guards: GuardsConfig, progress: Progress, total: int) -> None:
        self._path, self._guards, self._progress, self._total = path, guards, progress, total
        self.reason: str | None = None
        self._warned = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What was logged after the checkpoint that a run resumes from is logged again."""
        if state.is_world_process_zero:
            self._path.write_text("".join(_line(row) for row in state.log_history), "utf-8")

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.log_history:
            return
        newest = state.log_history[-1]
        if state.is_world_process_zero:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(newest))
            self._progress.step("steps", state.global_step, self._total)
        self.reason = self.reason or unhealthy(state.log_history, self._guards)
        if self.reason is not None:
            control.should_training_stop = True
        elif not self._warned and (warning := no_signal(state.log_history, self._guards)) is not None:
            self._warned = True
            self._progress.note(warning)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(scrub_json({k: _finite(v) for k, v in row.items()}), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
