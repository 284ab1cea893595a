"""json_schema: the output is a JSON document that a schema accepts; optionally with the accepted answer's content."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import Field

from gepa_atlas.errors import BadRequest, ConfigError, DataError
from gepa_atlas.ports import Case
from gepa_atlas.rim.judges._patterns import NotAPattern, compiled, find
from gepa_atlas.rim.judges.base import ANSWER, RIGHT, WRONG, Door, JudgeSettings, ProgramJudge, Verdict, program, shown
from gepa_atlas.types import Example

_KEPT = 256  # compiled schemas of examples
_FENCE = re.compile(r"\A\s*```[A-Za-z]*\s*\n(.*?)\n?```\s*\Z", re.S)


class JsonSchemaSettings(JudgeSettings):
    """`json_schema` is the schema itself; without one, the `schema` of the example's spec; without that, any JSON is accepted.

    `match: equal` also asks for the content of an accepted answer, `match: fields` gives the share of its top-level fields
    that are equal. Numbers compare by value, order of keys does not matter, extra fields count as wrong under `equal`.
    """

    type: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any] = Field(default_factory=dict)
    match: Literal["none", "equal", "fields"] = "none"
    fenced: bool = False  # accept a document inside one Markdown code fence
    max_chars: int = Field(default=1_000_000, ge=1)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.match == "none" else frozenset({ANSWER})

    @cached_property
    def _fixed(self) -> Callable[[Any], str | None]:
        return self._validator(self.json_schema, f"rim.judges.{self.called}.json_schema")

    def _validator(self, schema: dict[str, Any], where: str) -> Callable[[Any], str | None]:
        import jsonschema

        kind = clocked(jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator))
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ConfigError(f"{where}: not a JSON schema ({error.message}); correct it") from None
        import referencing

        for pattern in _patterns_of(schema):
            try:
                compiled(pattern)
            except NotAPattern as error:
                raise ConfigError(f"{where}: {error} (in {pattern[:80]!r}); correct it") from None
        for reference in _references(schema):
            if not _leads_somewhere(reference, schema):
                raise ConfigError(f"{where}: the $ref {reference!r} leads to nothing inside the schema; write what it means below $defs")
        # An empty registry: no reference ever opens an address or a file.
        validator = kind(schema, registry=referencing.Registry())

        def first_error(document: Any) -> str | None:
            try:
                error = jsonschema.exceptions.best_match(validator.iter_errors(document))
            except referencing.exceptions.Unresolvable as lost:
                raise BadRequest(f"{where}: the $ref {lost.ref!r} leads to nothing inside the schema") from None
            except RecursionError:
                raise BadRequest(
                    f"{where}: too deeply nested to be checked (a $ref that leads to itself, or a very deep document)"
                ) from None
            return None if error is None else error.message[:200]

        try:
            first_error(None)
        except BadRequest as error:
            raise ConfigError(f"{error}; correct the schema") from None
        return first_error

    def grade(self, case: Case) -> Verdict:
        text = case.output[: self.max_chars]
        fence = _FENCE.match(text) if self.fenced else None
        try:
            document = parse(fence[1] if fence else text)
        except ValueError as error:
            return WRONG, f"not a JSON document: {error}"
        first_error = self._fixed
        if not self.json_schema and case.example.spec:
            first_error = self._of(case.example)
        refusal = first_error(document)
        if refusal is not None:
            return WRONG, f"the schema refuses it: {refusal}"
        return (RIGHT, "the schema accepts it") if self.match == "none" else self._compare(document, case.example)

    def _of(self, example: Example) -> Callable[[Any], str | None]:
        """The validator of an example's own schema."""
        found = self._compiled.get(example.spec)
        if found is None:
            spec = json.loads(example.spec)
            schema = spec.get("schema", {}) if isinstance(spec, dict) else None
            if not isinstance(schema, dict):
                where = f"example {example.id!r}: its spec"
                raise ConfigError(f"{where} is a mapping with a `schema` mapping for judge {self.called!r}; correct it")
            if len(self._compiled) >= _KEPT:
                self._compiled.clear()
            found = self._compiled[example.spec] = self._validator(schema, f"example {example.id!r} spec.schema")
        return found

    @cached_property
    def _compiled(self) -> dict[str, Callable[[Any], str | None]]:
        return {}

    def _compare(self, document: Any, example: Example) -> Verdict:
        best: Verdict = (WRONG, "differs from the accepted answer")
        for answer in example.answers:
            gold = self._gold(answer, example)
            if document == gold:
                return RIGHT, "equals the accepted answer"
            if self.match == "fields" and isinstance(gold, dict) and isinstance(document, dict) and gold:
                equal = [key for key, value in gold.items() if key in document and document[key] == value]
                wrong = [key for key in gold if key not in equal]
                share = len(equal) / len(gold.keys() | document.keys())
                best = max(best, (share, f"differs in {', '.join(map(shown, wrong)) or 'extra fields'}"))
        return best

    def check(self, examples: Sequence[Example]) -> None:
        self._fixed(None)  # compiles the schema now, so that a bad one is refused before anything is spent
        for example in examples:
            if not self.json_schema and example.spec:
                self._of(example)(None)
            for answer in example.answers if self.match != "none" else ():
                self._gold(answer, example)

    def _gold(self, answer: str, example: Example) -> Any:
        try:
            return parse(answer)
        except ValueError:
            raise DataError(
                f"example {example.id!r} has the answer {shown(answer)}, which is not JSON, as judge {self.called!r} needs: correct it"
            ) from None

    def build(self, door: Door) -> ProgramJudge:
        self._fixed(None)
        return program(self, self.grade)


@functools.cache
def clocked(kind: Any) -> Any:
    """The validator of a draft with patterns that cannot run for ever."""
    import jsonschema

    refuse = jsonschema.ValidationError

    def pattern(validator: Any, wanted: str, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and find(compiled(wanted), instance) is None:
            yield refuse(f"{shown(instance)} does not match {wanted!r}")

    def pattern_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        for text, inner in wanted.items() if isinstance(instance, dict) else ():
            for name, value in instance.items():
                if find(compiled(text), name):
                    yield from validator.descend(value, inner, path=name, schema_path=text)

    def additional_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        patterns, known = schema.get("patternProperties", {}), schema.get("properties", {})
        names = instance if isinstance(instance, dict) else ()
        extra = [n for n in names if n not in known and not any(find(compiled(text), n) for text in patterns)]
        if isinstance(wanted, dict):
            for name in extra:
                yield from validator.descend(instance[name], wanted, path=name)
        elif not wanted and extra:
            yield refuse(f"has properties that the schema does not: {', '.join(map(shown, extra[:5]))}")

    keywords = {"pattern": pattern, "patternProperties": pattern_properties, "additionalProperties": additional_properties}
    extend: Any = jsonschema.validators.extend
    return extend(kind, keywords)


def _patterns_of(schema: Any) -> Iterator[str]:
    """Every pattern that a schema may search with."""
    if isinstance(schema, list):
        for value in schema:
            yield from _patterns_of(value)
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key == "pattern" and isinstance(value, str):
            yield value
        elif key == "patternProperties" and isinstance(value, dict):
            yield from value
        if key not in ("const", "enum", "default", "examples"):
            yield from _patterns_of(value)


def _references(schema: Any) -> Iterator[str]:
    inner = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, value in inner:
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            yield value
        elif key not in ("const", "enum", "default", "examples"):
            yield from _references(value)


def _leads_somewhere(reference: str, schema: Any) -> bool:
    """Whether a pointer (`#/$defs/name`) has a target; anchors and the schema's own `$id`s are taken on trust."""
    if not reference.startswith("#"):
        return "$id" in json.dumps(schema) or "//json-schema.org/" in reference
    here = schema
    for part in reference.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and key in here:
            here = here[key]
        elif isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        else:
            return False
    return True


def parse(text: str) -> Any:
    """Strict JSON: no NaN, no duplicate keys. Raises ValueError with a short reason."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is out of range")
    return number


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a key is given twice")
    return row
