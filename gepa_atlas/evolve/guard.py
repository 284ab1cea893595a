"""The leak guard: an evolved prompt must not carry what it will be tested on.

A text is refused when it holds a gold answer of a val or test example, or a run of `_RUN` words of such an example's question or context.
What also stands in the train split or in the seed prompt is no leak: labels, boilerplate and shared templates pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gepa_atlas.texts import shingles, words
from gepa_atlas.types import Candidate, Example

_RUN = 8  # words in a row that are not a coincidence
_LONG_ANSWER = 12  # characters; shorter answers (labels, numbers) turn up in prompts by themselves


def leak_guard(train: Sequence[Example], held_out: Sequence[Example], seeds: Sequence[Candidate]) -> Callable[[Candidate], str | None]:
    """A function that names the leak of a candidate, or returns None. Built once; a check costs the length of the candidate."""
    free = {run for example in train for text in _texts(example) for run in shingles(text, _RUN)}
    free |= {run for seed in seeds for _, text in seed.texts for run in shingles(text, _RUN)}
    known = {" ".join(words(a)) for example in train for a in example.answers}
    runs: dict[tuple[str, ...], str] = {}
    answers: dict[str, str] = {}
    for example in held_out:
        for text in _texts(example):
            runs |= dict.fromkeys((run for run in shingles(text, _RUN) if len(run) == _RUN and run not in free), example.id)
        for answer in example.answers:
            spelled = " ".join(words(answer))
            if len(answer) >= _LONG_ANSWER and spelled not in known:
                answers[spelled] = example.id

    def check(candidate: Candidate) -> str | None:
        for name, text in candidate.texts:
            spelled = " ".join(words(text))
            for answer, example in answers.items():
                if answer in spelled:
                    return f"component {name!r} holds the gold answer of held-out example {example!r}"
            for run in shingles(text, _RUN):
                if run in runs:
                    return f"component {name!r} repeats {_RUN} words of held-out example {runs[run]!r}: {' '.join(run)!r}"
        return None

    return check


def _texts(example: Example) -> tuple[str, ...]:
    return (example.question, example.context)
