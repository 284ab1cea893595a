"""A DSPy program as an agent: one predictor that reads the order number out of a customer's message.

Its language model is said by the configuration that names it (docs/providers.md, dspy.module). Needs the extra [dspy].
"""

from __future__ import annotations

import dspy


class Orders(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read = dspy.Predict(dspy.Signature("question -> answer", "Give the order number in the message."))

    def forward(self, question: str) -> dspy.Prediction:
        return self.read(question=question)
