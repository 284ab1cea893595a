"""README.md of a bundle: a model card whose front matter hubs read, with every figure from the decision and the evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def model_card(
    *,
    operation: str,
    license: str | None,
    decision: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    adapter: Mapping[str, Any] | None,
    data: Mapping[str, Any],
    serve: str | None,
) -> str:
    """`adapter` is its atlas.json; None for a bundle that is a prompt only. `data` are counts by name."""
    parts = [
        _front(operation, license, decision, adapter),
        f"# {operation}",
        _what(adapter),
        _verdict(decision),
        _table(evaluation),
        _effects(evaluation.get("two_by_two")),
        "## Data\n\n" + "\n".join(f"- {name}: {value}" for name, value in sorted(data.items())) if data else "",
        _use(decision["subject"]["treated"], serve),
        _limits(decision),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(operation: str, license: str | None, decision: Mapping[str, Any], adapter: Mapping[str, Any] | None) -> str:
    """YAML; every value is written as JSON, which YAML reads."""
    gain: Mapping[str, Any] = next((c for c in decision["criteria"] if c["name"] == "gain_over_student"), {})
    fields: dict[str, Any] = {"tags": ["gepa-atlas", "teacher", "prompt"]}
    if adapter is not None:
        fields["tags"] += ["lora", "grpo"] if adapter.get("kind") == "lora" else ["grpo"]
        fields |= {"base_model": adapter.get("base"), "library_name": "peft" if adapter.get("kind") == "lora" else "transformers"}
        fields["pipeline_tag"] = "text-generation"
    if license:
        fields["license"] = license
    fields["model-index"] = [
        {
            "name": operation,
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"name": "held-out tasks", "type": "held-out"},
                    "metrics": [{"type": "reward-delta", "value": gain.get("value"), "name": "paired delta against the student alone"}],
                }
            ],
        }
    ]
    return "---\n" + "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()) + "---"


def _what(adapter: Mapping[str, Any] | None) -> str:
    if adapter is None:
        return "An evolved prompt (`prompt.txt`) with its evidence. There are no weights in this bundle."
    return (
        f"An adapter (`adapter/`) of `{adapter.get('base')}` and the prompt it was trained with (`prompt.json`). "
        f"They ship as a pair: neither was judged alone. Base weights: sha256 `{adapter.get('base_sha256')}`."
    )


def _verdict(decision: Mapping[str, Any]) -> str:
    lines = ["## Decision", f"**{decision['verdict']}** ({decision['created']}), signed: {decision['signature']['kind']}."]
    lines.append("| criterion | figure | interval | threshold | passed |\n|---|---|---|---|---|")
    for c in decision["criteria"]:
        interval = f"[{_n(c['low'])}, {_n(c['high'])}]" if c["low"] is not None else ""
        passed = {True: "yes", False: "no", None: "undecided"}[c["passed"]]
        lines[-1] += f"\n| {c['name']} | {_n(c['value'])} | {interval} | {_n(c['threshold'])} | {passed} |"
    return "\n\n".join(lines)


def _table(evaluation: Mapping[str, Any]) -> str:
    lines = ["## Evaluation", ""]
    lines.append(f"{evaluation['tasks']} held-out tasks; {100 * evaluation['level']:g} % intervals over tasks.\n")
    lines.append(
        "| cell | reward | delta | not degraded | format | tokens | seconds | ECE | coverage |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, cell in evaluation["cells"].items():
        figures = [_e(cell["reward"]), _e(cell["delta"]), _e(cell["non_degradation"]), _n(cell["format_valid"]), _n(cell["tokens"])]
        figures += [_n(cell["seconds"]), _n((cell["calibration"] or {}).get("ece")), _n(cell["coverage"])]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _effects(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    named = (("prompt_effect", "evolved prompt"), ("weight_effect", "adapter"), ("interaction", "both beyond their sum"))
    return f"What is due to what ({found['n']} tasks):\n\n" + "\n".join(f"- {label}: {_e(found[name])}" for name, label in named)


def _use(treated: str, serve: str | None) -> str:
    said = "## Use\n\nGive `prompt.txt` to the teacher as its system prompt, unchanged."
    if treated.endswith("+none"):
        said = "## Use\n\nThe adapter was judged without a system prompt, and serves without one."
    if serve:
        said += f" Serve the adapter, from the folder of this bundle:\n\n```sh\n{serve}\n```"
    return said + "\n\nCheck the files with `sha256sum -c SHA256SUMS`."


def _limits(decision: Mapping[str, Any]) -> str:
    known: Sequence[str] = [
        "The figures hold for tasks like the held-out ones, for the student and the judges they were measured with.",
        "Guidance is text from a model: it can be wrong or harmful, and what reads it should treat it as data.",
        *(f"{str(w)[:1].upper()}{str(w)[1:]}." for w in decision.get("warnings", [])),
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in known)


def _n(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _e(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("value") is None:
        return ""
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
