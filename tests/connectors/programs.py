"""DSPy programs that the tests name by import path."""

from __future__ import annotations

import time
from typing import Any

import dspy

order = dspy.Predict("question -> answer")


class Echo(dspy.Module):  # type: ignore[misc]
    """Answers with what reached it: its input, and the instructions and demonstrations of its step."""

    def __init__(self) -> None:
        super().__init__()
        self.step = dspy.Predict(dspy.Signature("question -> answer", "Echo."))

    def forward(self, question: str) -> Any:
        shown = [f"{demo['question']}={demo['answer']}" for demo in self.step.demos]
        return dspy.Prediction(answer="\n".join([self.step.signature.instructions, *shown, question]))


class TwoSteps(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict(dspy.Signature("question -> plan", "Plan."))
        self.act = dspy.Predict(dspy.Signature("plan -> answer", "Act."))

    def forward(self, question: str, hint: str) -> Any:
        return dspy.Prediction(answer={"text": f"{self.plan.signature.instructions}/{self.act.signature.instructions}/{question}/{hint}"})


class Broken(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.step = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        raise RuntimeError("the database\nis down")


class Hanging(Broken):
    def forward(self, question: str) -> Any:
        time.sleep(2)
        return dspy.Prediction(answer="late")


class Empty(dspy.Module):  # type: ignore[misc]
    def forward(self, question: str) -> Any:
        return dspy.Prediction(answer="x")
