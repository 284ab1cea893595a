"""A language model for DSPy programs without a model: it writes capitals when its instructions or two demonstrations ask for them."""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace
from typing import Any

import dspy

ADVICE = "Answer in capital letters."


class ToyLM(dspy.BaseLM):  # type: ignore[misc]
    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__("toy/one", cache=False)
        self.calls = 0
        self.reflections = 0
        self.fails_at = fails_at
        self._lock = threading.Lock()

    def launch(self) -> None:
        pass

    def kill(self) -> None:
        pass

    def forward(self, prompt: str | None = None, messages: Any = None, **kwargs: Any) -> Any:
        with self._lock:
            self.calls += 1
            if self.fails_at is not None and self.calls >= self.fails_at:
                raise ConnectionError("the toy is out of order")
        system, last = str(messages[0]["content"]), str(messages[-1]["content"])
        if "new_instruction" in system + last:
            self.reflections += 1
            return _completion(f'{{"new_instruction": "{ADVICE}"}}')
        asked = re.search(r"starting with the field `\[\[ ## (\w+) ## \]\]`", last)
        if asked and asked[1] != "answer":  # MIPROv2's own proposer: descriptions of the data and the program, then an instruction
            return _completion(f"[[ ## {asked[1]} ## ]]\n{ADVICE}\n\n[[ ## completed ## ]]")
        question = re.search(r"## question ## \]\]\n(.*?)\n", last)
        assert question, last
        word = question[1].split()[-1]
        shouted = "capital" in system.lower() or sum(m["role"] == "assistant" for m in messages) >= 2
        return _completion(f"[[ ## answer ## ]]\n{word.upper() if shouted else word}\n\n[[ ## completed ## ]]")


def _completion(text: str) -> Any:
    message = SimpleNamespace(content=text, role="assistant", tool_calls=None)
    choice = SimpleNamespace(message=message, finish_reason="stop", index=0)
    return SimpleNamespace(choices=[choice], usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, model="toy/one")


def examples(first: int, last: int) -> list[Any]:
    return [dspy.Example(question=f"say word{n}", answer=f"WORD{n}").with_inputs("question") for n in range(first, last)]


def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    right = pred.answer == gold.answer
    return dspy.Prediction(score=float(right), feedback="right" if right else f"the answer is {gold.answer}")
