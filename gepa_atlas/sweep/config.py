"""A sweep's file: what is tried (suites x settings x seeds), how it is searched, what counts, and where it runs."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gepa_atlas.cluster import BackendConfig
from gepa_atlas.config import FREE, Loaded, load_config
from gepa_atlas.configfile import Tree, assign, read_yaml
from gepa_atlas.data import load_examples
from gepa_atlas.errors import ConfigError
from gepa_atlas.settings import Settings, load
from gepa_atlas.sweep.search import MOST, SearchConfig
from gepa_atlas.types import digest

# Objective -> whether more of it is better. `cost` is in dollars, `time` in seconds of wall clock.
OBJECTIVES = {"gain": True, "score": True, "harm": False, "cost": False, "time": False, "tokens": False, "rollouts": False}


class SuiteConfig(Settings):
    """One task: an experiment's configuration with overrides, or a Python function (settings, seed, **params) -> figures."""

    config: str | None = None  # relative to the sweep's file
    set: dict[str, Any] = Field(default_factory=dict)  # dotted keys of the configuration
    function: str | None = None  # "file.py:name" (relative to the sweep's file) or "package.module:name"
    params: dict[str, Any] = Field(default_factory=dict)  # more arguments of the function

    @model_validator(mode="before")
    @classmethod
    def _bare_path(cls, value: Any) -> Any:
        return {"config": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.config is None) == (self.function is None):
            raise ValueError("a suite is either `config: FILE.yaml` or `function: FILE.py:NAME`; give one of the two")
        if self.set and self.config is None:
            raise ValueError("`set` overrides keys of a configuration, and this suite is a function; use `params`")
        if self.params and self.function is None:
            raise ValueError("`params` are arguments of a function, and this suite is a configuration; use `set`")
        return self


class RangeConfig(Settings):
    """Numbers from low to high, both included. Whole numbers where low, high and step are written as such: 0 to 9 has ten values, 0.0 to
    9.0 has no end of them. `log` searches the exponent."""

    low: int | float
    high: int | float
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"low and high are finite ({self.low:g} and {self.high:g} are given)")
        if not self.low < self.high:
            raise ValueError(f"low must be below high ({self.low:g} and {self.high:g} are given)")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range starts above 0 and has no step")
        return self

    @property
    def whole(self) -> bool:
        return all(isinstance(x, int) for x in (self.low, self.high, 1 if self.step is None else self.step))

    @property
    def endless(self) -> bool:
        return self.step is None and not self.whole

    @property
    def count(self) -> int:
        """How many values a range has that is not endless."""
        return int((self.high - self.low) / (self.step or 1.0) + 1e-9) + 1

    def values(self) -> list[int | float]:
        """Every value of a range that is not endless."""
        found = [self.low + i * (self.step or 1.0) for i in range(self.count)]
        return [int(v) for v in found] if self.whole else [round(v, 12) for v in found]


class LimitsConfig(Settings):
    """What a cell may take. With a limit it runs in a process of its own, which is killed at `seconds`, and gets no more `megabytes`."""

    seconds: float | None = Field(default=None, gt=0)
    megabytes: int | None = Field(default=None, ge=64)  # of memory that it writes to; Linux

    def __bool__(self) -> bool:
        return self.seconds is not None or self.megabytes is not None


class SweepConfig(Settings):
    """One file, one sweep."""

    name: str | None = None
    suites: dict[str, SuiteConfig] = Field(min_length=1)
    space: dict[str, list[Any] | dict[str, Any]] = Field(default_factory=dict)
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    search: SearchConfig = SearchConfig()
    objectives: list[str] = Field(default_factory=lambda: ["gain"], min_length=1)
    backend: BackendConfig = BackendConfig()
    storage: str | None = None  # an SQLAlchemy URL for several machines, its password as ${NAME}; None: a journal in the sweep's folder
    attempts: int = Field(default=3, ge=1)  # of a cell whose worker is lost
    limits: LimitsConfig = LimitsConfig()

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 10_000 else value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.storage is not None and "${" not in (_password(self.storage) or "${"):
            raise ValueError(
                "storage: a password in it would be kept in the sweep's folder; write ${NAME} in its place and set that variable"
            )
        if self.name is not None and (not self.name.strip() or self.name in (".", "..") or "/" in self.name):
            raise ValueError(f"name: {self.name!r} names the sweep's folder; give it without slashes")
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ValueError(f"objectives: {name!r} is none; there are {', '.join(OBJECTIVES)}")
        for what, given in (("objectives", self.objectives), ("seeds", self.seeds)):
            if len(set(given)) < len(given):
                raise ValueError(f"{what}: one of them is named twice; keep it once")
        if (single := self.search.single) is not None and len(self.objectives) > 1:
            raise ValueError(f"search: {single} needs a single objective; keep one, or search with tpe and no pruner")
        if not self.space and self.search.method != "matrix":
            raise ValueError("space: is empty, and there is nothing to search; name settings and their values")
        if (cells := self.search.cells) is not None and cells < (each := len(self.suites) * len(self.seeds)):
            raise ValueError(f"search.cells: {cells} pays for no combination, which takes {each} (suites x seeds); give more")
        return self


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None


Value = str | int | float | bool | None


@dataclass(frozen=True)
class Setting:
    """A dimension of the space. `choices` maps a label, what optuna and the table see, to what is assigned to dotted keys."""

    name: str
    choices: dict[str, tuple[Value, Tree]] | None = None
    range: RangeConfig | None = None

    def labels(self) -> list[Value]:
        if self.choices is not None:
            return [label for label, _ in self.choices.values()]
        assert self.range is not None
        if self.range.endless:
            raise ConfigError(f"space.{self.name}: has no end; give a list, or a range with a step; or search with tpe")
        return list(self.range.values())

    def assigned(self, label: Value) -> Tree:
        """The dotted keys and values that this label stands for."""
        return {self.name: label} if self.choices is None else self.choices[_key(label)][1]


@dataclass(frozen=True)
class Cell:
    """The unit of work: one suite under one combination of settings with one seed."""

    suite: str
    settings: tuple[tuple[str, Value], ...]  # labels, in the order of the space
    seed: int

    @property
    def id(self) -> str:
        return digest([self.suite, self.settings, self.seed], 16)

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.seed}"

    def head(self) -> dict[str, Any]:
        """What the row of this cell begins with, whatever comes of it."""
        return {"suite": self.suite, "settings": dict(self.settings), "seed": self.seed}


@dataclass(frozen=True)
class Sweep:
    """A sweep's file, read and checked."""

    config: SweepConfig
    path: Path
    space: tuple[Setting, ...]

    @property
    def name(self) -> str:
        return self.config.name or self.path.stem

    @property
    def base_dir(self) -> Path:
        return self.path.parent

    @property
    def instances(self) -> list[tuple[str, int]]:
        """What every trial is run on, in order: (suite, seed)."""
        return [(suite, seed) for seed in self.config.seeds for suite in self.config.suites]

    def combinations(self) -> Iterator[dict[str, Value]]:
        """The matrix. Raises ConfigError where a range is endless."""
        names, labels = [s.name for s in self.space], [s.labels() for s in self.space]
        return (dict(zip(names, each, strict=True)) for each in itertools.product(*labels))

    def size(self) -> int | None:
        """How many combinations there are; None where a range makes them endless."""
        if any(s.range and s.range.endless for s in self.space):
            return None
        return math.prod(s.range.count if s.range else len(s.labels()) for s in self.space)

    def planned(self) -> int:
        """How many trials there may be."""
        search = self.config.search
        asked = search.trials or search.cells
        limits = [n for n in (asked, self.size()) if n is not None]
        return min(limits)

    def affordable(self, run: int) -> int:
        """How many trials more may be begun when `run` cells are run or promised. gp counts its cells itself."""
        cells = self.config.search.cells
        return self.planned() if cells is None or self.config.search.method == "gp" else max(0, cells - run) // len(self.instances)

    def cell(self, params: Mapping[str, Value], suite: str, seed: int) -> Cell:
        return Cell(suite, tuple((s.name, params[s.name]) for s in self.space), seed)

    def assigned(self, cell: Cell) -> Tree:
        """Dotted keys and values of a cell's settings."""
        labels = dict(cell.settings)
        found: Tree = {}
        for setting in self.space:
            for key, value in setting.assigned(labels[setting.name]).items():
                if key in found:
                    raise ConfigError(f"space: {setting.name} and another setting both assign {key}; leave it to one of them")
                found[key] = value
        return found

    def loaded(self, cell: Cell) -> Loaded:
        """The configuration of a cell's run. Raises ConfigError, one line."""
        given = {**self.config.suites[cell.suite].set, **self.assigned(cell), "seed": cell.seed}
        return load_config(self.suite_path(cell.suite), [f"{key}={json.dumps(value)}" for key, value in given.items()])

    def suite_path(self, name: str) -> Path:
        """The file of a suite that is a configuration."""
        return (self.base_dir / (self.config.suites[name].config or "")).resolve()

    def manifest(self) -> dict[str, str]:
        """One digest for each part that decides what a cell finds, so that a changed sweep is refused by the part's name.

        Left out: `backend`, `attempts`, `limits`, `storage` and how many trials there are, which may change on the way.
        """
        config = self.config
        parts = {
            "space": [[s.name, s.choices, s.range.model_dump() if s.range else None] for s in self.space],
            "seeds": config.seeds,
            "objectives": config.objectives,
            "search": config.search.model_dump(exclude={"trials", "cells", "batch"}),
            **{f"suites.{name}": self._content(name) for name in config.suites},
        }
        return {name: digest(part, 16) for name, part in parts.items()}

    def _content(self, name: str) -> Any:
        suite = self.config.suites[name]
        if suite.config is None:
            return suite.model_dump()
        loaded = load_config(self.suite_path(name), [f"{key}={json.dumps(value)}" for key, value in suite.set.items()])
        data = load_examples(loaded.config.data, loaded.base_dir).fingerprint
        return [{key: value for key, value in loaded.resolved.items() if key not in FREE - {"budget"}}, data]


def load_sweep(path: Path | str, overrides: list[str] | None = None) -> Sweep:
    """Read and check a sweep's file. Raises ConfigError, one line."""
    path = Path(path).resolve()
    tree = read_yaml(path)
    for assignment in overrides or ():
        tree = assign(tree, assignment, lambda at: at)
    try:
        config = load(SweepConfig, tree, "")
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {str(error).removeprefix(': ')}") from None
    sweep = Sweep(config, path, tuple(_setting(name, given) for name, given in config.space.items()))
    if (most := MOST.get(method := config.search.method)) is not None:
        if (size := sweep.size()) is not None and size > most:
            raise ConfigError(f"{path.name}: space: {size:,} combinations, and {method} takes {most:,}; list fewer, or search with tpe")
        sweep.combinations()
    _check_cells(sweep)
    return sweep


def _setting(name: str, given: list[Any] | dict[str, Any]) -> Setting:
    where = f"space.{name}"
    if name == "seed":
        raise ConfigError("space.seed: the seeds of a sweep repeat every combination; list them under `seeds`")
    if isinstance(given, list):
        if not given:
            raise ConfigError(f"{where}: has no values; list some, or remove the setting")
        return Setting(name, _distinct(where, [(_label(value), {name: value}) for value in given]))
    if "choices" in given:
        named = given["choices"]
        if len(given) > 1 or not isinstance(named, dict) or not named or not all(isinstance(v, dict) for v in named.values()):
            raise ConfigError(f"{where}: choices is a mapping of a name to the keys that it sets, and nothing stands beside it")
        return Setting(name, _distinct(where, [(label, dict(keys)) for label, keys in named.items()]))
    return Setting(name, range=load(RangeConfig, given, where))


def _distinct(where: str, given: list[tuple[Value, Tree]]) -> dict[str, tuple[Value, Tree]]:
    found = {_key(label): (label, keys) for label, keys in given}
    if min(len(found), len({label for label, _ in given})) < len(given):
        raise ConfigError(f"{where}: a value is listed twice (1, 1.0 and true are one to optuna); keep it once, or name it by choices")
    return found


def _label(value: Any) -> Value:
    """Lists and mappings are shown, and stored, as their JSON."""
    return value if isinstance(value, Value) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _key(label: Value) -> str:
    """1 and "1" are two labels."""
    return json.dumps(label)


def _check_cells(sweep: Sweep) -> None:
    """Every value of every setting is put into every configuration once, so that a misspelt key costs nothing."""
    first = {setting.name: _some_label(setting) for setting in sweep.space}
    wanted = [first] + [{**first, s.name: label} for s in sweep.space if s.choices for label, _ in s.choices.values()]
    for name, suite in sweep.config.suites.items():
        if suite.function is not None:
            _check_function(f"suites.{name}.function", suite.function, sweep.base_dir)
        for params in wanted:
            cell = sweep.cell(params, name, sweep.config.seeds[0])
            sweep.assigned(cell)
            if suite.config is None:
                continue
            try:
                sweep.loaded(cell)
            except ConfigError as error:
                shown = ", ".join(f"{k}={v}" for k, v in cell.settings)
                raise ConfigError(f"suites.{name}{f' with {shown}' if shown else ''}: {error}") from None


def _check_function(where: str, function: str, base: Path) -> None:
    """What can be seen of a function without running its file."""
    source, _, name = function.rpartition(":")
    if not source or not name:
        raise ConfigError(f"{where}: {function!r} must read `path/to/file.py:function` or `module:function`")
    if source.endswith(".py") and not (base / source).is_file():
        raise ConfigError(f"{where}: there is no file {str(base / source)!r}; paths start at the directory of the sweep's file")


def _some_label(setting: Setting) -> Value:
    if setting.range is None:
        return setting.labels()[0]
    return int(setting.range.low) if setting.range.whole else setting.range.low
