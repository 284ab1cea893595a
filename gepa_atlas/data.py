"""Examples from files, a Python function or a source elsewhere (datasource.py), in three splits fixed by the hash of their ids.

train is reflected on, val selects, test reports: no example is in two of them, and a missing test split is said, not papered over.
Every function raises DataError with one line that names the file and line, the rule and the next step.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from gepa_atlas import datasource
from gepa_atlas.datafile import Row, read_rows, shown
from gepa_atlas.errors import AtlasError, DataError
from gepa_atlas.settings import Settings
from gepa_atlas.types import Example, Split, canonical, digest

SPLITS: tuple[Split, ...] = ("train", "val", "test")
FEW_TEST_EXAMPLES = 20  # below this a paired 95 % interval of a 0/1 reward is wider than +-0.2 even for large gains

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test",
}  # fmt: skip
_ALIASES: dict[str, tuple[str, ...]] = {
    "question": ("question", "prompt", "input"),
    "answer": ("answer", "answers", "ground_truth", "output", "target"),
    "context": ("additional_context", "context"),
    "id": ("id",),
    "split": ("split",),
    "tags": ("tags",),
    "spec": ("spec",),
}


class Columns(Settings):
    """Which column of a row is which field; a field left out is looked for under its usual names."""

    question: str | None = None
    answer: str | None = None
    context: str | None = None
    id: str | None = None
    split: str | None = None
    tags: str | None = None
    spec: str | None = None


class Shares(Settings):
    """Share of the examples in each split; ids decide which, so adding an example never moves another. A share left out is 0."""

    train: float = Field(default=0.5, ge=0)
    val: float = Field(default=0.25, ge=0)
    test: float = Field(default=0.25, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _left_out_is_none(cls, value: Any) -> Any:
        return {"train": 0, "val": 0, "test": 0, **value} if isinstance(value, Mapping) and value else value

    @model_validator(mode="after")
    def _sum_is_one(self) -> Self:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test is {self.train + self.val + self.test:g}; the shares must add up to 1")
        if not self.train or not self.val:
            raise ValueError("train and val need a share above 0: the search learns from one and selects on the other")
        return self


SOURCES = ("path", "function", "http", "prometheus", "itbench", "dataset", "toyworld")


class DataConfig(Settings):
    """Where examples come from: one of SOURCES, or `train` with `val` and `test`."""

    path: str | None = None
    train: str | None = None
    val: str | None = None
    test: str | None = None
    function: str | None = None  # "module:function" or "file.py:function", returns mappings or Examples
    args: tuple[Any, ...] = ()  # positional arguments of the function
    params: dict[str, Any] = Field(default_factory=dict)  # keyword arguments of the function
    http: datasource.HttpSource | None = None
    prometheus: datasource.PrometheusSource | None = None
    itbench: datasource.ItbenchSource | None = None
    dataset: str | datasource.HubSource | None = None
    toyworld: dict[str, Any] | None = None
    columns: Columns = Columns()
    split: Shares = Shares()
    max_examples: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        files = "train" if self.train or self.val or self.test else None
        given = [n for n in (*SOURCES, files) if n and getattr(self, n) is not None]
        if files and self.train is None:
            raise ValueError("val or test is given without train; give train too")
        if len(given) != 1:
            known = "path, train (with val and test), function, http, prometheus, itbench, dataset or toyworld"
            raise ValueError(f"exactly one source is needed: {known}; got {given or 'none'}")
        if self.test and not self.val:
            raise ValueError("train and test are given without val; the search selects on val, give it too")
        if (self.params or self.args) and not self.function:
            raise ValueError("args and params are the arguments of a function; give function too")
        return self


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint splits in an order that does not depend on the order of the file, and what cannot be claimed with them."""

    train: tuple[Example, ...]
    val: tuple[Example, ...]
    test: tuple[Example, ...]
    fingerprint: str  # digest of every example with its split
    notes: tuple[str, ...] = ()

    @property
    def examples(self) -> tuple[Example, ...]:
        return self.train + self.val + self.test

    def sizes(self) -> str:
        return f"{len(self.train)} train, {len(self.val)} val, {len(self.test)} test"


def load_examples(config: DataConfig, base_dir: Path) -> Dataset:
    """Read, split, check and fingerprint. Relative paths are relative to `base_dir`."""
    notes: list[str] = []
    found: list[tuple[Example, str]] = []  # the example and the place it comes from
    for source, split in _sources(config, base_dir, notes):
        found += [_example(row, config, split) for row in source]
    if not found:
        raise DataError(f"{_named(config)}: no examples in it; a run needs some, a few dozen to learn anything")
    kept = _without_duplicates(found, notes)
    if config.max_examples is not None and len(kept) > config.max_examples:
        notes.append(f"max_examples keeps {config.max_examples} of {len(kept)} examples, chosen by the hash of their ids")
        kept = kept[: config.max_examples]
    return _dataset(kept, config, notes)


def _dataset(kept: list[Example], config: DataConfig, notes: list[str]) -> Dataset:
    parts = {split: tuple(e for e in kept if e.split == split) for split in SPLITS}
    for split in ("train", "val"):
        if not parts[split]:
            sizes = ", ".join(f"{len(parts[s])} {s}" for s in SPLITS)
            raise DataError(f"{_named(config)}: the {split} split is empty ({sizes}); add examples or change data.split")
    test = parts["test"]
    if not test:
        notes.append("there is no test split: the result has no held-out figure, and nothing can be claimed for unseen questions")
    elif len(test) < FEW_TEST_EXAMPLES:
        notes.append(f"only {len(test)} test examples: the interval of the gain will be wide (give {FEW_TEST_EXAMPLES} or more)")
    without_gold = sum(1 for e in kept if not e.answers)
    if without_gold:
        notes.append(f"{without_gold} of {len(kept)} examples have no gold answer: they cannot be demonstrations or be judged against gold")
    fingerprint = digest(sorted((e.to_json() for e in kept), key=canonical))
    return Dataset(parts["train"], parts["val"], test, fingerprint, tuple(notes))


def _named(config: DataConfig) -> str:
    kind = next((name for name in SOURCES if getattr(config, name) is not None), "train")
    return f"data {config.path or config.train or config.function or kind}"


# -- sources ----------------------------------------------------------------------------------------------------------


def _sources(config: DataConfig, base_dir: Path, notes: list[str]) -> Iterable[tuple[Iterable[Row], Split | None]]:
    """Rows with the split they belong to; None leaves it to the split column or the hash."""
    if config.function is not None:
        yield _call(config.function, config.args, config.params, base_dir), None
    elif config.http is not None:
        yield datasource.http_rows(config.http), None
    elif config.prometheus is not None:
        yield datasource.prometheus_rows(config.prometheus), None
    elif config.itbench is not None:
        yield datasource.itbench_rows(config.itbench, base_dir, notes), None
    elif config.dataset is not None:
        yield datasource.hub_rows(config.dataset), None
    elif config.toyworld is not None:
        yield _call("gepa_atlas.testing.toyworld:toy_examples", (config.toyworld,), {}, base_dir), None
    elif config.train is not None and config.val is not None:
        for split, name in (("train", config.train), ("val", config.val), ("test", config.test)):
            if name is not None:
                yield read_rows(base_dir / name), _SPLIT_NAMES[split]
    else:
        name = config.path or config.train
        assert name is not None
        if config.train is not None:
            notes.append("only a train set is given: it is split into train, val and test by the hash of the ids")
        yield read_rows(base_dir / name), None


def _call(target: str, args: tuple[Any, ...], params: Mapping[str, Any], base_dir: Path) -> list[Row]:
    function = _import_target(target, base_dir)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise DataError(f"data.function {target!r} is async; give a plain function that returns a list")
    try:
        inspect.signature(function).bind(*args, **params)
    except TypeError as error:
        raise DataError(f"data.function {target!r} cannot be called with params {sorted(params)}: {error}") from None
    try:
        values = list(function(*args, **params))
    except AtlasError:
        raise
    except (Exception, SystemExit) as error:  # a user's code: whatever it raises is named, never a traceback
        raise DataError(f"data.function {target!r} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    return [Row(f"{target} item {n}", value) for n, value in enumerate(values, 1)]


def _import_target(target: str, base_dir: Path) -> Callable[..., Any]:
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise DataError(f"data.function {target!r}: write it as module:function or file.py:function")
    try:
        if where.endswith(".py"):
            path = (base_dir / where).resolve()
            if not path.is_file():
                raise DataError(f"data.function {target!r}: there is no file {path}; the path is relative to the configuration")
            spec = importlib.util.spec_from_file_location(f"_atlas_data_{digest(str(path), 12)}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # before it runs: dataclasses look their own module up
            spec.loader.exec_module(module)
        else:
            if str(base_dir) not in sys.path:
                sys.path.append(str(base_dir))
            module = importlib.import_module(where)
    except DataError:
        raise
    except (Exception, SystemExit) as error:  # a user's module: whatever its import raises is named
        raise DataError(f"data.function {target!r}: importing it raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    function = vars(module).get(name)
    if not callable(function):
        raise DataError(f"data.function {target!r}: {where} has no function {name!r}")
    return function  # type: ignore[no-any-return]


# -- one row ----------------------------------------------------------------------------------------------------------


def _example(row: Row, config: DataConfig, split: Split | None) -> tuple[Example, str]:
    if isinstance(row.value, Example):
        return _checked(row.value, row.place), row.place
    if not isinstance(row.value, Mapping):
        raise DataError(f"{row.place}: a {type(row.value).__name__}, not a mapping of columns; write one object per example")
    values, columns = row.value, config.columns
    _refuse_what_is_not_json(row, values)
    question = _text(row, "question", _pick(row, "question", columns.question))
    if not question.strip():
        raise DataError(f"{row.place}: the question is empty; fill it in or remove the line")
    raw_context = _pick(row, "context", columns.context, required=columns.context is not None)
    context = "" if raw_context is None else raw_context if isinstance(raw_context, str) else _dumped(raw_context)
    answers = _answers(_pick(row, "answer", columns.answer, required=columns.answer is not None))
    raw_id = _pick(row, "id", columns.id, required=columns.id is not None)
    example_id = digest([question, context], 16) if raw_id in (None, "") else _text(row, "id", raw_id)
    given = _pick(row, "split", columns.split, required=columns.split is not None)
    if split is None and given not in (None, ""):
        split = _SPLIT_NAMES.get(str(given).strip().lower())
        if split is None:
            raise DataError(f"{row.place}: split is {given!r}; use train, val or test")
    tags = _pick(row, "tags", columns.tags, required=columns.tags is not None)
    spec = _pick(row, "spec", columns.spec, required=columns.spec is not None)
    example = Example(
        example_id,
        question,
        answers,
        context,
        split or _split_of(example_id, config.split),
        tuple(str(t) for t in tags) if isinstance(tags, list) else (str(tags),) if tags else (),
        "" if spec in (None, "") else spec if isinstance(spec, str) else canonical(spec),
    )
    return example, row.place


def _checked(example: Example, place: str) -> Example:
    """An Example that a user's function made: dataclasses check nothing."""
    texts = (example.id, example.question, example.context, example.spec)
    lists = (example.answers, example.tags)
    if not all(isinstance(text, str) for text in texts) or not example.question.strip():
        raise DataError(f"{place}: id, question, context and spec of an Example are texts, and the question is not empty")
    if not all(isinstance(part, tuple) and all(isinstance(text, str) for text in part) for part in lists):
        raise DataError(
            f"{place}: answers and tags of an Example are tuples of texts; got {example.answers!r:.80} and {example.tags!r:.80}"
        )
    if example.split not in SPLITS:
        raise DataError(f"{place}: split is {example.split!r}; use train, val or test")
    try:
        _dumped(example.to_json()).encode()
    except UnicodeEncodeError:
        raise DataError(f"{place}: contains half of a character (a lone surrogate); return whole characters") from None
    return example


def _pick(row: Row, field: str, column: str | None, *, required: bool = False) -> Any:
    names = (column,) if column is not None else _ALIASES[field]
    for name in names:
        found, value = _at(row.value, name)
        if found:
            return value
    if required or field == "question":
        wanted = repr(column) if column else " or ".join(_ALIASES[field])
        raise DataError(
            f"{row.place}: no column {wanted} for the {field}; "
            f"the columns are {shown(row.value)}: name the right one in data.columns.{field}"
        )
    return None


def _at(values: Mapping[Any, Any], name: str) -> tuple[bool, Any]:
    """The value of a column, or of the field below it that a dotted name leads to; and whether there is one."""
    if name in values:
        return True, values[name]
    head, dot, rest = name.partition(".")
    below = values.get(head) if dot else None
    return _at(below, rest) if isinstance(below, Mapping) else (False, None)


def _text(row: Row, field: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{row.place}: the {field} is a {type(value).__name__}; it must be text")


def _answers(value: Any) -> tuple[str, ...]:
    """Accepted gold answers: a list is several, an empty string or null is none, an object is its JSON."""
    if value is None or value == "":
        return ()
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(v if isinstance(v, str) else _dumped(v) for v in value if v not in (None, "")))
    return (value if isinstance(value, str) else _dumped(value),)


def _dumped(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _refuse_what_is_not_json(row: Row, values: Mapping[Any, Any]) -> None:
    try:
        _dumped(values).encode()
    except UnicodeEncodeError:
        raise DataError(f"{row.place}: contains half of a character (a lone surrogate); write the file as UTF-8") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{row.place}: holds a value that is not JSON ({error}); return text, numbers, lists and mappings") from None


def _hash01(example_id: str, purpose: str) -> float:
    """A number in [0, 1) that depends on the id and the purpose alone."""
    return int(digest([purpose, example_id], 13), 16) / 16**13


def _split_of(example_id: str, shares: Shares) -> Split:
    at = _hash01(example_id, "split")
    return "train" if at < shares.train else "val" if at < shares.train + shares.val else "test"


# -- duplicates -------------------------------------------------------------------------------------------------------


def _without_duplicates(found: list[tuple[Example, str]], notes: list[str]) -> list[Example]:
    """Every example once, in the order of the hash of its id. The same id or question in two splits is a leak: an error."""
    by_id: dict[str, tuple[Example, str]] = {}
    by_question: dict[str, tuple[Example, str]] = {}
    kept: list[Example] = []
    dropped = 0
    for example, place in found:
        key = canonical([" ".join(text.split()).casefold() for text in (example.question, example.context)])
        for what, seen in (("id", by_id.get(example.id)), ("question", by_question.get(key))):
            if seen is not None and seen[0].split != example.split:
                raise DataError(
                    f"{place}: example {example.id!r} ({example.split}) has the same {what} as {seen[0].id!r} "
                    f"({seen[0].split}, {seen[1]}); "
                    "an example may be in one split only, remove one of them"
                )
        same_id, same_question = by_id.get(example.id), by_question.get(key)
        if same_id is not None and same_id is not same_question:
            raise DataError(f"{place}: the id {example.id!r} is that of another question ({same_id[1]}); ids must be unique")
        if same_question is not None:
            dropped += 1
            continue
        by_id[example.id] = by_question[key] = (example, place)
        kept.append(example)
    if dropped:
        notes.append(f"{dropped} duplicate{'s' if dropped > 1 else ''} inside a split dropped")
    return sorted(kept, key=lambda e: (_hash01(e.id, "order"), e.id))
