"""What an optimizer is here, and the prompt that our own simple peers reflect with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.server import EvalServer, Rollout, Texts

Optimizer = Callable[[EvalServer, int], dict[str, str]]
"""(server, seed) -> the texts to ship. It tells the server where its current best is with `server.watch`."""

# The default reflection template of gepa 0.1.4 (MIT), so that every peer asks the reflector in the same words.
REFLECTION = """I provided an assistant with the following instructions to perform a task for me:
```
{current}
```

The following are examples of different task inputs provided to the assistant along with the assistant's response for each of them, and
some feedback on how the assistant's response could be better:
```
{examples}
```

Your task is to write a new instruction for the assistant.

Provide the new instructions within ``` blocks."""


def step_feedback(feedback: str, component: str, components: Sequence[str]) -> str:
    """The part of a feedback that concerns a component: lines tagged with another component's name are left out."""
    if len(components) == 1:
        return feedback
    others = [f"[{c}]" for c in components if c != component]
    kept = [s for s in feedback.split(". ") if not any(o in s for o in others)]
    return ". ".join(kept) or "The reply was not accepted."


def fenced(text: str) -> str:
    """What stands between the first and the last code fence; the whole text where there is none."""
    start, end = text.find("```"), text.rfind("```")
    if start < 0 or end <= start:
        return text.strip()
    return text[start + 3 : end].partition("\n")[2].strip() or text[start + 3 : end].strip()


def reflect(server: EvalServer, candidate: Texts, component: str, rollouts: Sequence[Rollout]) -> dict[str, str]:
    """One whole-rewrite reflection on one component."""
    parts = [
        f"# Example {i + 1}\n## Inputs\n{server.question(r.example)}\n## Generated Outputs\n{r.output}\n"
        f"## Feedback\n{step_feedback(r.feedback, component, server.components)}\n"
        for i, r in enumerate(rollouts)
    ]
    answer = server.reflect(REFLECTION.replace("{current}", candidate[component]).replace("{examples}", "\n".join(parts)))
    return {**candidate, component: fenced(answer)}


def mean(rollouts: Sequence[Rollout]) -> float:
    return sum(r.score for r in rollouts) / len(rollouts) if rollouts else 0.0
