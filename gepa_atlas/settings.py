"""The base of every settings model: unknown keys are errors with the nearest known key, and every error is one line."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from gepa_atlas.errors import ConfigError

_USER = re.compile(r"//[^/@\s]+@")  # user and password of an address


class Settings(BaseModel):
    """Frozen, strict about keys. A key that is accepted is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's `true` is not 1."""
        if isinstance(value, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            kinds = typing.get_args(annotation) or (annotation,)
            if bool not in kinds and (int in kinds or float in kinds):
                raise ValueError("this takes a number, not true or false")
        return value


M = TypeVar("M", bound=BaseModel)


def load(model: type[M], data: Mapping[str, Any], where: str) -> M:
    """Validate `data`, or raise ConfigError with one line: the key's full path from `where`, the rule, the next step."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_first_line(model, error, where)) from None


def _first_line(model: type[BaseModel], error: ValidationError, where: str) -> str:
    found = error.errors(include_url=False)
    # A misspelt key is also a missing one: the misspelling is the news.
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path = [str(part) for part in first["loc"]]
    key = ".".join([where, *path]) if where else ".".join(path)
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_at(model, path[:-1]))
        near = difflib.get_close_matches(path[-1], known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if first["type"] == "missing":
        return f"{key}: this key is required; add it to the configuration"
    rule = f"{key}: {first['msg'].removeprefix('Value error, ')}"
    if first["type"] == "value_error" and isinstance(first.get("input"), dict):
        return rule  # about keys taken together, which it names: the whole block would hide them
    shown = _USER.sub("//[redacted]@", repr(first.get("input")))
    return f"{rule} (got {shown if len(shown) < 80 else shown[:77] + '...'})"


def _keys_at(model: type[BaseModel], path: list[str]) -> set[str]:
    """Known keys of the (possibly nested) model that an error path points into."""
    here: list[type[BaseModel]] = [model]
    for part in path:
        inner = [m for h in here if part in h.model_fields for m in _models_in(h.model_fields[part].annotation)]
        here = inner or here
    return {name for h in here for name in h.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [m for arg in typing.get_args(annotation) for m in _models_in(arg)]
