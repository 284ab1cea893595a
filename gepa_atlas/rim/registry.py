"""Judge types by name. One line a type; a type's module is imported when it is first used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.rim.judges.base import JudgeSettings
from gepa_atlas.settings import load

JUDGES: dict[str, str] = {
    "exact": "gepa_atlas.rim.judges.exact:ExactSettings",
    "choice": "gepa_atlas.rim.judges.choice:ChoiceSettings",
    "number": "gepa_atlas.rim.judges.number:NumberSettings",
    "answer": "gepa_atlas.rim.judges.answer:AnswerSettings",
    "contains": "gepa_atlas.rim.judges.contains:ContainsSettings",
    "regex": "gepa_atlas.rim.judges.regex:RegexSettings",
    "json_schema": "gepa_atlas.rim.judges.json_schema:JsonSchemaSettings",
    "python": "gepa_atlas.rim.judges.python:PythonSettings",
    "llm": "gepa_atlas.rim.judges.llm:LlmSettings",
    "atlas": "gepa_atlas.rim.judges.atlas:AtlasSettings",
    "recorded": "gepa_atlas.rim.judges.recorded:RecordedSettings",
    "code": "gepa_atlas.rim.judges.code:CodeSettings",
    "instructions": "gepa_atlas.rim.judges.instructions:InstructionsSettings",
}


def register(name: str, place: str) -> None:
    """Add a judge type: `place` is "module:SettingsClass". For extensions; ours are in the table above."""
    JUDGES[name] = place


def settings_class(name: object, where: str) -> type[JudgeSettings]:
    if not isinstance(name, str) or name not in JUDGES:
        near = difflib.get_close_matches(str(name), list(JUDGES), 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known types: {', '.join(JUDGES)}"
        raise ConfigError(f"{where}: unknown judge type {name!r}; {hint}")
    module, _, attribute = JUDGES[name].partition(":")
    found: type[JudgeSettings] = getattr(importlib.import_module(module), attribute)
    return found


def read_judge(entry: object, where: str) -> JudgeSettings:
    """One entry of `judges:`: a bare type name, or a mapping with `type` and that type's keys."""
    if isinstance(entry, JudgeSettings):
        return entry
    if isinstance(entry, str):
        entry = {"type": entry}
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: a judge is a type name or a mapping with `type`, not {entry!r}"[:200])
    if "type" not in entry:
        raise ConfigError(f"{where}.type: this key is required; one of {', '.join(JUDGES)}")
    data: dict[str, Any] = {str(key): value for key, value in entry.items()}
    return load(settings_class(data["type"], f"{where}.type"), data, where)
