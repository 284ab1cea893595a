"""dspy.MIPROv2 as a peer: its own bootstrapping, demonstration sets and TPE; student calls counted at the student.

The program is one predictor whose forward is a counted call of the server, so that bootstrapping, minibatch trials and full passes all
spend the same budget. The prompt model is the shared proposer. Trials are chosen so that the budget is used; the server stops the rest,
and the best fully or partly validated program so far is what it ships.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import re
from importlib import import_module
from typing import Any

from benchmarks import demos
from benchmarks.server import BudgetExhausted, EvalServer

MINIBATCH, FULL_EVERY, CANDIDATES, DEMOS = 25, 5, 6, 4


def run(server: EvalServer, seed: int) -> dict[str, str]:
    """MIPROv2 with 4 bootstrapped and 4 labelled demonstrations, minibatch trials, and a full validation every five."""
    dspy: Any = import_module("dspy")
    component = server.components[0]
    ids = {server.question(e): e for e in (*server.val_ids, *server.train_ids)}
    seen: dict[str, list[float]] = {}
    over = {"stop": False}

    def best() -> dict[str, str]:
        enough = [t for t, s in seen.items() if len(s) >= len(server.val_ids)] or [t for t, s in seen.items() if len(s) >= MINIBATCH]
        return {component: max(enough, key=lambda t: sum(seen[t]) / len(seen[t]))} if enough else dict(server.seed)

    class Counted(dspy.Predict):  # type: ignore[misc]
        """A predictor that asks the server in place of a language model."""

        def forward(self, **inputs: Any) -> Any:
            text = _text(self.signature.instructions, self.demos)
            example = ids[inputs["input"]]
            try:
                rollout = server.evaluate({component: text}, [example])[0]
            except BudgetExhausted:
                over["stop"] = True
                raise
            if example in server.val_ids:
                seen.setdefault(text, []).append(rollout.score)
            made = dspy.Prediction(output=server.answer(example) if rollout.score >= 1.0 else rollout.output)
            if dspy.settings.trace is not None:
                dspy.settings.trace.append((self, {**inputs}, made))
            return made

    class Program(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.answer = Counted(dspy.Signature("input -> output", server.seed[component]))

        def forward(self, input: str) -> Any:
            return self.answer(input=input)

    def metric(example: Any, made: Any, trace: Any = None) -> float:
        return float(made.output == example.output)

    def data(names: tuple[str, ...]) -> list[Any]:
        return [dspy.Example(input=server.question(e), output=server.answer(e)).with_inputs("input") for e in names]

    server.watch(best)
    val = len(server.val_ids)
    trials = max(2, round((server.budget - 2 * val - 30) / (MINIBATCH + val / FULL_EVERY)))
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    optimizer = dspy.MIPROv2(
        metric=metric, prompt_model=_prompt_model(server, seed), task_model=_prompt_model(server, seed), auto=None,
        num_candidates=CANDIDATES,
        max_bootstrapped_demos=DEMOS, max_labeled_demos=DEMOS, num_threads=1, max_errors=1, seed=seed, verbose=False, track_stats=False,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            final = optimizer.compile(
                Program(), trainset=data(server.train_ids), valset=data(server.val_ids), num_trials=trials, minibatch=True,
                minibatch_size=min(MINIBATCH, val), minibatch_full_eval_steps=FULL_EVERY, program_aware_proposer=False,
                data_aware_proposer=False, tip_aware_proposer=False,
            )  # fmt: skip
        except Exception:  # dspy wraps what its threads raise; anything that is not the spent budget goes on
            if not over["stop"]:
                raise
            return best()
    predictor = final.predictors()[0]
    return {component: _text(predictor.signature.instructions, predictor.demos)}


def _text(instructions: str, shown: Any) -> str:
    return "\n".join([instructions, *(demos.line(d["input"], d["output"]) for d in shown)])


def _prompt_model(server: EvalServer, seed: int) -> Any:
    """The shared proposer as a dspy language model: it fills every output field it is asked for."""
    dspy: Any = import_module("dspy")
    rng = random.Random(seed)

    class Scripted(dspy.utils.DummyLM):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__([])

        def __call__(self, prompt: Any = None, *, messages: Any = None, **_: Any) -> list[str]:
            asked = str(prompt or messages[-1]["content"])
            fields = list(dict.fromkeys(re.findall(r"\[\[ ## (\w+) ## \]\]`", asked))) or ["proposed_instruction"]
            fence = f"```\n{server.seed[server.components[0]]}\n```\nVariant {rng.random()}."
            text = server.reflect(fence).strip("`\n")
            return ["\n\n".join(f"[[ ## {f} ## ]]\n{text if f != 'completed' else ''}" for f in [*fields, "completed"])]

    return Scripted()
