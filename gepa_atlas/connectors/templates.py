"""Request templates: JSON documents with placeholders in their strings, at any depth. Pure; one pass, so what is put in stays data.

{prompt} {question} {context} {guidance} are texts inside a string; a string that is exactly "{demos}" or "{messages}" becomes a list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gepa_atlas.connectors.placement import Placement, chat_turns, demo_rows, guidance_text, prompt_text
from gepa_atlas.texts import fill
from gepa_atlas.types import Json, Task

_LISTS = ("{demos}", "{messages}")


def strings_in(value: Any) -> set[str]:
    """Every string value inside a JSON value."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return {text for part in inner for text in strings_in(part)}


def demos_apart(strings: Collection[str]) -> bool:
    """Whether a template has a place of its own for demonstrations, so that they are no part of {prompt} and {guidance}."""
    return not set(_LISTS).isdisjoint(strings)


def values_of(task: Task, how: Placement, *, demos_apart: bool) -> dict[str, str]:
    return {
        "prompt": prompt_text(task, how, demos_apart=demos_apart),
        "question": task.question.text,
        "context": task.question.context,
        "guidance": guidance_text(task.guidance, how, demos_apart=demos_apart),
    }


def lists_of(task: Task, how: Placement, *, system: str = "") -> dict[str, list[Json]]:
    turns = chat_turns(task, how, system=system)
    return {"{demos}": [dict(row) for row in demo_rows(task.guidance.demos)], "{messages}": [dict(turn.to_json()) for turn in turns]}


def filled(template: Any, values: Mapping[str, str], lists: Mapping[str, list[Json]]) -> Any:
    if isinstance(template, str):
        return lists[template] if template in lists else fill(template, values)
    if isinstance(template, Mapping):
        return {name: filled(part, values, lists) for name, part in template.items()}
    if isinstance(template, list | tuple):
        return [filled(part, values, lists) for part in template]
    return template


def check_reach(strings: Collection[str], guidance: str, where: str) -> None:
    """ValueError when question or guidance would not reach the agent, or guidance would reach it twice, or a list stands inside a text."""
    for name, text in ((name, text) for name in _LISTS for text in sorted(strings) if name in text and name != text):
        raise ValueError(f"{where}: {name} becomes a list, so it is a value of its own, not part of {text[:60]!r}; as text use {{prompt}}")
    holds = {name: any("{" + name + "}" in s for s in strings) for name in ("prompt", "question", "guidance")}
    if guidance in ("system", "turns") and "{messages}" not in strings:
        raise ValueError(f'guidance: {guidance} needs {where} to hold the value "{{messages}}"')
    if "{messages}" in strings:
        if guidance == "field" and not holds["guidance"]:
            raise ValueError(f'guidance: field needs "{{guidance}}" in {where}')
        return
    if not (holds["prompt"] or holds["question"]):
        raise ValueError(f'{where} must hold "{{prompt}}" or "{{question}}" in one of its strings')
    if not holds["guidance"] and (guidance == "field" or not holds["prompt"]):
        raise ValueError('the guidance would not reach the agent: put "{guidance}", or "{prompt}" with prefix or suffix, in a string')
    if holds["guidance"] and holds["prompt"] and guidance != "field":
        raise ValueError("{prompt} and {guidance} together send the guidance twice; set guidance: field")
