"""python -m benchmarks.dspy_tutorial [--optimizer atlas|gepa] [--size 16] [--budget 120]: dspy.GEPA's tutorial on the embedded model.

A dspy.Predict reads the order number out of a customer's message. The embedded model answers, and is the reflection model too. Printed are
the scores on held-out messages before and after, and that of the saved program, loaded by DSPy alone in another process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PLAIN = """
    import json, logging, sys
    import dspy

    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    lm = dspy.LM("openai/local", api_base=sys.argv[1], api_key="none", temperature=0.0, max_tokens=26, cache=False)
    program = dspy.Predict("question -> answer")
    program.load(sys.argv[2])
    answers = []
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        for question in json.loads(sys.stdin.read()):
            try:
                answers.append(program(question=question).answer)
            except dspy.utils.exceptions.AdapterParseError:
                answers.append("")
    assert not [name for name in sys.modules if name.startswith("gepa_atlas")]
    print(json.dumps(answers))
"""


def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    import dspy

    right = pred.answer.strip() == gold.answer
    return dspy.Prediction(score=float(right), feedback="right" if right else f"The answer is {gold.answer}.")


def messages(seed: int = 1) -> list[Any]:
    """The messages of the quickstart as dspy.Examples, in an order of their own."""
    import dspy

    rows = [json.loads(line) for line in (ROOT / "configs/examples/data/orders.jsonl").read_text("utf-8").splitlines()]
    random.Random(seed).shuffle(rows)
    return [dspy.Example(question=row["question"], answer=row["answer"]).with_inputs("question") for row in rows]


def tutorial(url: str, optimizer: Any, train: list[Any], val: list[Any], test: list[Any], directory: Path) -> dict[str, float]:
    """Shares of right answers on `test`: before, after, and after loading the saved program in plain DSPy."""
    import dspy

    lm = dspy.LM("openai/local", api_base=url, api_key="none", temperature=0.0, max_tokens=26, cache=False)
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        before = _right(program, test)
        better = optimizer(lm).compile(program, trainset=train, valset=val)
        after = _right(better, test)
    better.save(directory / "program.json")
    command = [sys.executable, "-c", textwrap.dedent(PLAIN), url, str(directory / "program.json")]
    asked = json.dumps([example.question for example in test])
    said = subprocess.run(command, input=asked, capture_output=True, text=True, cwd=directory, check=True).stdout
    answers = json.loads(said.splitlines()[-1])
    loaded = sum(a == example.answer for a, example in zip(answers, test, strict=True)) / len(test)
    return {"before": before, "after": after, "loaded": loaded}


def _right(program: Any, test: Sequence[Any]) -> float:
    import dspy

    found = dspy.Evaluate(devset=list(test), metric=lambda g, p, trace=None: metric(g, p).score, num_threads=2, max_errors=10**6)
    return sum(float(score) for _, _, score in found(program).results) / len(test)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dspy_tutorial", description=__doc__)
    parser.add_argument("--optimizer", choices=["atlas", "gepa"], default="atlas")
    parser.add_argument("--size", type=int, default=16, help="examples in each of train, val and test")
    parser.add_argument("--budget", type=int, default=120, help="metric calls")
    given = parser.parse_args(arguments)
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else dspy looks for prices on the network
    import dspy

    from gepa_atlas.dspy import GEPAAtlas
    from gepa_atlas.llm.local import LocalModel, LocalParams
    from gepa_atlas.llm.serve import serving

    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    kind = GEPAAtlas if given.optimizer == "atlas" else dspy.GEPA
    data, n = messages(), given.size
    began = time.monotonic()
    with serving(LocalModel(LocalParams())) as url, tempfile.TemporaryDirectory() as directory:
        scores = tutorial(
            url,
            lambda lm: kind(metric=metric, max_metric_calls=given.budget, reflection_lm=lm, num_threads=2),
            data[:n],
            data[n : 2 * n],
            data[2 * n : 3 * n],
            Path(directory),
        )
    print(f"{given.optimizer}: {json.dumps(scores)}, {given.budget} metric calls, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
