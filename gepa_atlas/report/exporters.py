"""The result of a run in the forms that other tools read. Pure: from an optimized_prompts.json document to (file name, text).

text         the prompt as it is, demonstrations behind it
atlas        ATLAS's six keys and nothing else
dspy         state of a DSPy program, for `dspy.Predict("question -> answer").load(FILE)`; of several texts, by predictor name
mlflow       arguments of `mlflow.genai.register_prompt`, one object a text
promptfoo    a promptfooconfig.yaml with the seed prompt beside the winner, where it is known
openai       a stored prompt as the Responses API takes it in the code: instructions, messages, variables

What evolved is data: braces and template marks in it come out of the other tool as they went in (MLflow alone has no escape: a {{name}}
in a text becomes { {name}}). The placeholders of templates that are filled per example ({question}, {attempt}, ...) become variables of
the other tool; a playbook has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.report.prompts import ATLAS_KEYS

_FILLED = ("question", "context", "attempt", "approach", "teaching")  # what protocols fill in their templates
_MARKS = re.compile(r"\{\{|\}\}|\{%|%\}|\{#|#\}")  # of Nunjucks
_VARIABLE = re.compile(r"\{\{(?=\s*\w+\s*\}\})")  # of MLflow
_DSPY_AS_OF = {"python": "3.11", "dspy": "3.4.1", "cloudpickle": "3.1"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an exporter needs of optimized_prompts.json."""

    name: str
    texts: Mapping[str, str]
    demos: Sequence[Mapping[str, str]]
    settings: Mapping[str, Any]
    templates: bool  # whether {question} and its like in the texts are filled in per example
    about: str  # the verdict in a sentence
    document: Mapping[str, Any]

    @property
    def lone(self) -> str | None:
        """The text of a run that has one that is no template: instructions to an agent."""
        return next(iter(self.texts.values())) if len(self.texts) == 1 and not self.templates else None

    @property
    def with_context(self) -> bool:
        return any(demo.get("context") for demo in self.demos)


def prompt_of(document: Mapping[str, Any]) -> Prompt:
    """Raises ConfigError when this is no document of ours."""
    try:
        return Prompt(
            str(document["name"]),
            {str(k): str(v) for k, v in document["best_candidate"].items()},
            [{k: str(v) for k, v in demo.items()} for demo in document["demonstrations"]],
            dict(document["settings"]),
            document["protocol"] not in ("playbook", ""),
            str(document["verdict"]["sentence"]),
            document,
        )
    except (KeyError, TypeError, AttributeError):
        raise ConfigError("this is not an optimized_prompts.json of gepa_atlas; `gepa-atlas report RUN` writes it again") from None


def export(document: Mapping[str, Any], form: str) -> tuple[str, str]:
    """(suggested file name, text). Raises ConfigError for a form that is not known."""
    if form not in FORMS:
        raise ConfigError(f"--format: {form!r} is not known; choose one of {', '.join(FORMS)}")
    suffix, make = FORMS[form]
    prompt = prompt_of(document)
    made = make(prompt)
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', prompt.name) or 'prompt'}{suffix}", made if isinstance(made, str) else _json(made)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


# -- the forms --------------------------------------------------------------------------------------------------------


def _text(prompt: Prompt) -> str:
    alone = len(prompt.texts) == 1
    parts = [text if alone else f"# {name}\n\n{text}" for name, text in prompt.texts.items()]
    parts += [f"Question: {_asked(demo)}\nAnswer: {demo['answer']}" for demo in prompt.demos]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _atlas(prompt: Prompt) -> dict[str, Any]:
    return {key: prompt.document[key] for key in ATLAS_KEYS}


def _dspy(prompt: Prompt) -> dict[str, Any]:
    lone = prompt.lone
    if lone is not None and set(prompt.texts) == {"guidance"}:
        inputs = ["context", "question"] if prompt.with_context else ["question"]
        fields = [{"prefix": f"{name.capitalize()}:", "description": f"${{{name}}}"} for name in (*inputs, "answer")]
        rows = [{name: demo.get(name, "") for name in (*inputs, "answer")} for demo in prompt.demos]
        return {**_state(lone, fields, rows), "metadata": {"dependency_versions": _DSPY_AS_OF}}
    states = {name: _state(text, [], []) for name, text in prompt.texts.items()}
    return {**states, "metadata": {"dependency_versions": _DSPY_AS_OF}}


def _state(instructions: str, fields: list[dict[str, str]], demos: list[dict[str, str]]) -> dict[str, Any]:
    return {"traces": [], "train": [], "demos": demos, "signature": {"instructions": instructions, "fields": fields}, "lm": None}


def _mlflow(prompt: Prompt) -> list[dict[str, Any]]:
    tags = {
        "gepa_atlas.run": str(prompt.document.get("run_id", "")),
        "gepa_atlas.candidate": str(prompt.document.get("best_candidate_id", "")),
    }

    def spaced(text: str) -> str:
        return _VARIABLE.sub("{ {", text)

    def entry(name: str, template: Any) -> dict[str, Any]:
        return {"name": f"{prompt.name}-{name}", "template": template, "commit_message": prompt.about, "tags": tags}

    if prompt.lone is not None:
        name = next(iter(prompt.texts))
        return [entry(name, _messages(prompt, spaced))]
    return [entry(name, _with_variables(text, spaced, prompt.templates)) for name, text in prompt.texts.items()]


def _promptfoo(prompt: Prompt) -> str:
    import yaml

    def raw(text: str) -> str:
        return _MARKS.sub(lambda mark: "{% raw %}" + mark[0] + "{% endraw %}", text)

    if prompt.lone is not None:
        prompts = [{"label": "evolved", "raw": json.dumps(_messages(prompt, raw), ensure_ascii=False)}]
    else:
        prompts = [{"label": name, "raw": _with_variables(text, raw, prompt.templates)} for name, text in prompt.texts.items()]
    tests = [{"vars": {"question": _asked(demo)}, "assert": [{"type": "equals", "value": demo["answer"]}]} for demo in prompt.demos[:3]]
    config = {
        "description": prompt.about,
        "prompts": prompts,
        "providers": ["echo"],
        "tests": tests or [{"vars": {"question": "A question of yours"}}],
    }
    head = "# `echo` prints the request; put your own provider in its place. The tests are the demonstrations: replace them too.\n"
    return head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)


def _openai(prompt: Prompt) -> dict[str, Any] | list[dict[str, Any]]:
    """A request of the Responses API without its model: what a stored prompt holds, and `variables` to be filled in."""

    def entry(name: str, instructions: str, turns: list[dict[str, str]]) -> dict[str, Any]:
        metadata = {"name": name, "run": str(prompt.document.get("run_id", ""))}
        return {"instructions": instructions, "input": turns, **_sampling(prompt.settings), "metadata": metadata}

    if prompt.lone is not None:
        return {"variables": ["question"], **entry(prompt.name, prompt.lone, _messages(prompt, str)[1:])}
    return [
        {"variables": [v for v in _FILLED if "{" + v + "}" in text], **entry(name, _with_variables(text, str, prompt.templates), [])}
        for name, text in prompt.texts.items()
    ]


def _sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_output_tokens"}
    return {theirs: settings[ours] for ours, theirs in names.items() if ours in settings}


def _messages(prompt: Prompt, safe: Callable[[str], str]) -> list[dict[str, str]]:
    """The prompt as a chat: instructions, demonstrations as turns, the open question. `safe` keeps template marks as they are."""
    turns = [{"role": "system", "content": safe(prompt.lone or "")}]
    for demo in prompt.demos:
        turns += [{"role": "user", "content": safe(_asked(demo))}, {"role": "assistant", "content": safe(demo["answer"])}]
    return [*turns, {"role": "user", "content": "{{question}}"}]


def _with_variables(text: str, safe: Callable[[str], str], templates: bool) -> str:
    """A template's placeholders as {{name}}; everything else as it is."""
    if not templates:
        return safe(text)
    parts = re.split("({(?:" + "|".join(_FILLED) + ")})", text)
    return "".join("{" + part + "}" if i % 2 else safe(part) for i, part in enumerate(parts))


def _asked(demo: Mapping[str, str]) -> str:
    return f"{demo['context']}\n\n{demo['question']}" if demo.get("context") else demo["question"]


# name -> (ending of the file, exporter)
FORMS: dict[str, tuple[str, Callable[[Prompt], Any]]] = {
    "text": (".txt", _text),
    "atlas": (".atlas.json", _atlas),
    "dspy": (".dspy.json", _dspy),
    "mlflow": (".mlflow.json", _mlflow),
    "promptfoo": (".promptfoo.yaml", _promptfoo),
    "openai": (".openai.json", _openai),
}
