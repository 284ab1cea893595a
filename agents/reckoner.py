"""An agent that reckons with the two numbers of a question, and does not know how until it is told: `agents/reckoner.py:answer`.

It answers with the first number unless the guidance holds a word that it knows; then it does what the first such word says. Nothing but the
guidance tells a total from a gap, so a teacher that reads the question can make it right, and a wrong one can spoil a right answer.
`examples` are questions for it, `reflect` stands in for a model that rewrites prompts: it asks for what most of the questions it is shown
need. Paired with configs/examples/reckoner.yaml.
"""

from __future__ import annotations

import json
import random
import re

WAYS = {"add": lambda a, b: a + b, "subtract": lambda a, b: abs(a - b), "multiply": lambda a, b: a * b, "compare": max}
KINDS = {"total": "add", "gap": "subtract", "area": "multiply", "largest": "compare"}
SAYS = {"add": "Add them.", "subtract": "Subtract them.", "multiply": "Multiply them.", "compare": "Compare them."}
_ASKED = ("What is", "Find", "Say")


def answer(question: str, guidance: str) -> str:
    a, b = (int(number) for number in re.findall(r"\d+", question)[:2])
    known = [word for word in re.findall(r"[a-z]+", guidance.lower()) if word in WAYS]
    return str(WAYS[known[0]](a, b) if known else a)


def examples(count: int = 300, seed: int = 0) -> list[dict[str, str]]:
    """Different questions with their answers; two of five ask for a total, the others for a gap, an area or the larger number."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        kind, a, b = draw.choice(["total", *KINDS]), draw.randint(2, 12), draw.randint(2, 12)
        question = f"{draw.choice(_ASKED)} the {kind} of {a} and {b}"
        found[question] = str(WAYS[KINDS[kind]](a, b))
    return [{"id": f"r{at}", "question": question, "answer": said} for at, (question, said) in enumerate(found.items())]


def reflect(prompt: str) -> str:
    """One edit of the guidance, in the form that the operator `reflect` asks for."""
    seen = re.findall(r"the (total|gap|area|largest) of", prompt)
    text = SAYS[KINDS[random.Random(prompt).choice(seen)]]
    edit = {"component": "guidance", "op": "replace", "item": 1, "text": text}
    return json.dumps({"diagnosis": "The agent does not know how to reckon.", "edits": [edit]})
