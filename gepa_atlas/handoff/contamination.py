"""Whether a text repeats what it will be tested on: a run of n words of a held-out task, or a long gold answer of one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from gepa_atlas.texts import words
from gepa_atlas.types import Example

_SHORT = 6  # words; a held-out text with fewer is no evidence, one with fewer than n is looked for as a whole
_LONG_ANSWER = 12  # characters; shorter answers (labels, numbers) turn up by themselves

Gram = tuple[str, ...]


class Held:
    """What is held out. What also stands in a train task is boilerplate, and free."""

    def __init__(self, held: Iterable[Example], train: Iterable[Example], n: int) -> None:
        self._n = n
        self._runs: dict[int, dict[Gram, str]] = defaultdict(dict)  # length -> run -> task id
        self._answers: dict[int, dict[Gram, str]] = defaultdict(dict)
        for task in held:
            for text in (task.question, task.context):
                for run in _runs(words(text), n):
                    self._runs[len(run)].setdefault(run, task.id)
            for answer in task.answers:
                if len(answer) >= _LONG_ANSWER:
                    spelled = tuple(words(answer))
                    self._answers[len(spelled)].setdefault(spelled, task.id)
        for task in train:
            for text in (task.question, task.context):
                self._forget(self._runs, words(text))
            for answer in task.answers:
                self._answers[len(words(answer))].pop(tuple(words(answer)), None)

    def _forget(self, known: dict[int, dict[Gram, str]], spoken: list[str]) -> None:
        for length, runs in known.items():
            for run in _windows(spoken, length):
                runs.pop(run, None)

    def repeated(self, text: str) -> list[tuple[str, str]]:
        """(task id, what of it the text repeats), each task once."""
        spoken = words(text)
        found: dict[str, str] = {}
        for known in (self._runs, self._answers):
            for length, runs in known.items():
                if runs:
                    for run in _windows(spoken, length):
                        if run in runs:
                            found.setdefault(runs[run], " ".join(run))
        return list(found.items())


def _runs(spoken: Sequence[str], n: int) -> Iterable[Gram]:
    if len(spoken) >= n:
        return _windows(spoken, n)
    return [tuple(spoken)] if len(spoken) >= _SHORT else []


def _windows(spoken: Sequence[str], length: int) -> Iterable[Gram]:
    return (tuple(spoken[at : at + length]) for at in range(len(spoken) - length + 1)) if length else ()
