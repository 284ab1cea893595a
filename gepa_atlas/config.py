"""A run's configuration: every key, what it may be, and how a file, the environment and `--set` become one.

Order, later wins: files in `defaults:`, the file itself, the five variables of ATLAS_VARIABLES, `--set`, in the order given.
What a provider's `params`, the judges of `rim` and `operator_options` may hold is checked by the part they configure, when a run
is built (`gepa_atlas.build`): loading a configuration imports none of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gepa_atlas.cluster import BackendConfig
from gepa_atlas.configfile import At, Tree, assign, dotted, escape, expand, merge, put, read_with_defaults, read_yaml
from gepa_atlas.data import SOURCES, DataConfig
from gepa_atlas.datasource import NAMED
from gepa_atlas.errors import ConfigError
from gepa_atlas.legacy import PLANNER, modernise
from gepa_atlas.memory.config import MemoryConfig, memory_block
from gepa_atlas.observe.config import ObserveConfig
from gepa_atlas.settings import Settings, load
from gepa_atlas.types import digest

# What each variable replaces; a variable that is unset or empty replaces nothing.
ATLAS_VARIABLES = {
    "STUDENT_MODEL": "agents.student.params.model",
    "TEACHER_MODEL": "agents.teacher (its params.model, when it is a mapping that has one)",
    "REFLECTION_LM": "reflection_lm (its params.model, when it is a mapping that has one)",
    "TRAINSET": "trainset, relative to the current directory",
    "VALSET": "valset, relative to the current directory",
}


class ProviderConfig(Settings):
    """Who answers: a provider and its params. For a model, a bare name is short for {provider: name}."""

    provider: str
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any, info: ValidationInfo) -> Any:
        return {"provider": value} if isinstance(value, str) else value

    @property
    def spec(self) -> str | dict[str, Any]:
        """What the registry of models takes."""
        return {"provider": self.provider, "params": self.params} if self.params else self.provider


class AgentsConfig(Settings):
    """`student` is the agent in production (`target` and `user_agent` are other names for it), `teacher` a model that writes guidance."""

    student: ProviderConfig
    teacher: ProviderConfig | None = None


class BudgetConfig(Settings):
    """Hard limits beside max_metric_calls. A run that reaches one ends its search and tests what it has found with what is left."""

    tokens: int | None = Field(default=None, ge=1)
    dollars: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class StopConfig(Settings):
    """When to end before the budget: `plateau` children in a row without a new best, a mean gain of `target`, too many failures."""

    plateau: int | None = Field(default=None, ge=1)
    target: float | None = Field(default=None, allow_inf_nan=False)
    error_share: float = Field(default=0.5, gt=0, le=1)


class TargetConfig(Settings):
    """What is wanted of one text: `optimize: false` keeps it as it is; `reflection_goal` tells the operators what to work towards."""

    optimize: bool = True
    reflection_goal: str | None = None


class WarmStartConfig(Settings):
    """What `optimize --warm-start` found, kept with the run so that it can be resumed. What is recalled is in operator_options.recall."""

    runs: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    similarity: float = Field(default=1.0, ge=0, le=1.000001)
    seeds: tuple[dict[str, Any], ...] = ()  # candidates that are tried beside the seed prompt
    asked: int = Field(default=0, ge=0)  # held-out examples of this run that those have asked
    searched: int = Field(default=0, ge=0)  # and those of them that they searched on


class AtlasConfig(Settings):
    """One file, one runnable experiment. docs/configuration.md says each key in a sentence."""

    agents: AgentsConfig
    reflection_lm: ProviderConfig | None = None
    protocol: dict[str, Any] = Field(default_factory=dict)  # {name, params}; a bare name is short for {name: ...}
    seed_prompts: dict[str, str] = Field(default_factory=dict)
    fixed_prompts: dict[str, str] = Field(default_factory=dict)  # templates of the protocol that are not evolved
    optimization_targets: dict[str, TargetConfig] = Field(default_factory=dict)
    reflection_instructions: dict[str, str] = Field(default_factory=dict)  # the goal of a text that optimization_targets names none for
    data: DataConfig
    rim: dict[str, Any] = Field(default_factory=dict)
    gain: dict[str, Any] = Field(default_factory=lambda: {"name": "delta"})  # {name, its parameters}
    max_metric_calls: int = Field(default=150, ge=1, le=1_000_000_000)
    budget: BudgetConfig = BudgetConfig()
    concurrency: int = Field(default=8, ge=1, le=1024)
    backend: BackendConfig | None = None  # of agents whose code needs processors; None: in this process
    width: int | None = Field(default=None, ge=1, le=1024)  # proposals in flight; None: by max_metric_calls, see `build.width_of`
    minibatch: int = Field(default=6, ge=1)  # val examples that a new child is tried on
    retest: int = Field(default=3, ge=0)  # candidates measured once more before the winner is named
    final_share: float = Field(default=0.4, ge=0, lt=1)  # at most this share of max_metric_calls is kept for the held-out test
    seed: int = Field(default=0, ge=0)
    operators: tuple[str, ...] | None = None  # None: every operator that has what it needs
    operator_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stop: StopConfig = StopConfig()
    retry: dict[str, Any] = Field(default_factory=dict)
    output: str | None = None  # a copy of optimized_prompts.json; the run directory always has one
    trace_storage: str | None = None  # a copy of traces.jsonl; the run directory always has one
    run_dir: str | None = None  # default: runs/<name of the configuration file>
    memory: MemoryConfig | None = None  # where what is learned is kept across runs; `on`, `off`, an address, or a mapping
    observe: ObserveConfig | None = None  # who is told what the run does: spans, metrics, experiment trackers
    warm_start: WarmStartConfig | None = None

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: Any) -> Any:
        return memory_block(value)

    @field_validator("protocol", "gain", mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _options_of_operators(self) -> Self:
        if self.operators is not None:
            for name in self.operator_options:
                if name not in self.operators:
                    raise ValueError(f"operator_options.{name} is for an operator that is not in operators; add it there")
        return self

    @property
    def protocol_name(self) -> str:
        default: Literal["lesson", "playbook"] = "lesson" if self.agents.teacher else "playbook"
        return str(self.protocol.get("name", default))


@dataclass(frozen=True)
class Loaded:
    """A validated configuration, where it came from, and the same with defaults filled in and without secrets."""

    config: AtlasConfig
    path: Path
    base_dir: Path  # relative input paths start here; output paths start at the current directory
    resolved: Tree
    notes: tuple[str, ...] = ()

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir or Path("runs") / self.path.stem)


def load_config(path: Path | str, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Loaded:
    """Read, merge, override, expand and validate. Raises ConfigError, one line."""
    path = Path(path)
    env = os.environ if env is None else env
    tree, changes = read_modern(path)
    tree, notes = _from_environment(tree, env)
    for assignment in overrides:
        tree = assign(tree, assignment, _student_path)
    tree, later = modernise(tree, str(path), override=True)
    if changes or later:
        notes.append(
            f"{path.name} has keys of ATLAS: {len(changes + later)} things are read in another way than they are written; "
            f"`gepa-atlas migrate {path}` lists them and writes the new form"
        )
    return _loaded(tree, path.resolve(), env, notes)


def from_tree(tree: Tree, path: Path, env: Mapping[str, str] | None = None) -> Loaded:
    """The same of a mapping made by a program. `path` names it in messages; relative paths start at its directory."""
    modern, _ = modernise(_normalised(tree, path), str(path))
    return _loaded(modern, path, os.environ if env is None else env, [])


def _loaded(tree: Tree, path: Path, env: Mapping[str, str], notes: Sequence[str]) -> Loaded:
    expanded = expand(tree, env, str(path))
    finished = _with_reward_file(_with_data_keys(expanded.tree), path, env)
    config = _validated(finished, path)
    resolved: Tree = escape(config.model_dump(mode="json"))
    for at, written in expanded.masked.items():
        resolved = put(resolved, at, written, str(path))
    resolved["source"] = str(path)
    return Loaded(config, path, path.parent, resolved, tuple(notes))


def read_modern(path: Path) -> tuple[Tree, list[str]]:
    """The file over its `defaults:`, without keys of ATLAS, and what changed. Variables are not filled in.

    ATLAS's relative paths started at the current directory, ours start at the file: those that are found only from there are moved.
    """
    tree, changes = modernise(read_with_defaults(path, _normalised), str(path))
    for at in _ATLAS_PATHS if changes else ():
        name = _below(tree, at)
        if not isinstance(name, str) or name in NAMED or "${" in name or (path.parent / name).exists() or not Path(name).exists():
            continue
        moved = os.path.relpath(Path(name).resolve(), path.resolve().parent)
        tree = put(tree, at, moved, str(path))
        changes.append(f"{dotted(at)}: {name} is {moved}: paths start at the configuration")
    return tree, changes


_ATLAS_PATHS: tuple[At, ...] = (
    ("trainset",), ("valset",), ("reward_config_path",), ("data", "path"), ("data", "itbench", "scenarios_dir"),
)  # fmt: skip


def load_resolved(run_dir: Path, overrides: Sequence[str] = ()) -> Loaded:
    """The configuration a run was started with, from its config.json. Variables of secrets are read from the environment again."""
    path = run_dir / "config.json"
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); use `gepa-atlas optimize` with the configuration instead") from None
    source = tree.pop("source", None) if isinstance(tree, dict) else None
    if not isinstance(source, str):
        raise ConfigError(f"{path}: does not name the configuration the run was started with; use `gepa-atlas optimize` with it instead")
    for assignment in overrides:
        tree = assign(tree, assignment, _student_path)
    expanded = expand(tree, os.environ, str(path))
    resolved = {**tree, "source": source}
    return Loaded(_validated(expanded.tree, path), Path(source), Path(source).parent, resolved)


def _validated(tree: Tree, path: Path) -> AtlasConfig:
    try:
        return load(AtlasConfig, tree, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix(': ')}") from None


# -- keys with two names ----------------------------------------------------------------------------------------------


def _normalised(tree: Tree, path: Path) -> Tree:
    """One spelling before files are merged: `target` and `user_agent` are `student`, the bare name of a protocol is its `name`."""
    if isinstance(tree.get("protocol"), str):
        tree = {**tree, "protocol": {"name": tree["protocol"]}}
    agents = tree.get("agents")
    if not isinstance(agents, dict):
        return tree
    given = [name for name in ("target", "user_agent", "student") if name in agents]
    if len(given) == 2 and given[1] == "student":  # ATLAS let another model state the plan of the agent it wrapped
        agents = {(PLANNER if name == "student" else name): block for name, block in agents.items()}
        given = given[:1]
    if len(given) > 1:
        raise ConfigError(f"{path}: agents.{given[0]} and agents.{given[1]} are two names for the same agent; keep one")
    renamed = {("student" if key in given else key): value for key, value in agents.items()}
    return {**tree, "agents": renamed}


def _student_path(at: At) -> At:
    return ("agents", "student", *at[2:]) if at[:2] in (("agents", "target"), ("agents", "user_agent")) else at


def _with_data_keys(tree: Tree) -> Tree:
    """`trainset`, `valset` and `testset` are `data.train`, `data.val` and `data.test`, and replace another source."""
    tree = dict(tree)
    sets = {split: tree.pop(f"{split}set") for split in ("train", "val", "test") if tree.get(f"{split}set") is not None}
    data = tree.get("data") or {}
    if sets and isinstance(data, dict):
        kept = {k: v for k, v in data.items() if k not in (*SOURCES, "args", "params")} if "train" in sets else data
        if sets.get("train") in NAMED:  # a data set that ATLAS knew by name
            sets["dataset"] = sets.pop("train")
        tree["data"] = {**kept, **sets}
    return tree


def _with_reward_file(tree: Tree, path: Path, env: Mapping[str, str]) -> Tree:
    """`reward_config_path` is a YAML file whose keys (or whose `rim:` block) are the ground `rim:` is merged over."""
    tree = dict(tree)
    name = tree.pop("reward_config_path", None)
    if name is None:
        return tree
    if not isinstance(name, str):
        raise ConfigError(f"reward_config_path: takes the path of a YAML file (got {name!r})")
    file = path.resolve().parent / name
    ground = expand(read_yaml(file), env, str(file)).tree
    inner = ground.get("rim", ground)
    own = tree.get("rim") or {}
    if not isinstance(inner, dict) or not isinstance(own, dict):
        raise ConfigError(f"reward_config_path: {file} holds no mapping of judges; write rim: {{judges: [...]}} in it")
    return {**tree, "rim": merge(inner, own)}


# -- the environment --------------------------------------------------------------------------------------------------


def _from_environment(tree: Tree, env: Mapping[str, str]) -> tuple[Tree, list[str]]:
    notes: list[str] = []
    changed: Any = tree
    models: tuple[tuple[str, At], ...] = (("TEACHER_MODEL", ("agents", "teacher")), ("REFLECTION_LM", ("reflection_lm",)))
    for name, at in models:
        if value := env.get(name):
            here = _below(changed, at)
            has_model = isinstance(here, dict) and isinstance(here.get("params"), dict) and "model" in here["params"]
            changed = put(changed, (*at, "params", "model") if has_model else at, value, name)
            notes.append(f"{dotted(at)} is {value} (from {name})")
    if value := env.get("STUDENT_MODEL"):
        student: At = ("agents", "student", "params")
        params = _below(changed, student)
        if not isinstance(params, dict) or "model" not in params:
            raise ConfigError(
                "STUDENT_MODEL is set, but agents.student.params has no model to replace: unset it, or use a provider that has one (chat)"
            )
        inner = params["model"]
        nested = isinstance(inner, dict) and isinstance(inner.get("params"), dict) and "model" in inner["params"]
        changed = put(changed, (*student, "model", "params", "model") if nested else (*student, "model"), value, "STUDENT_MODEL")
        notes.append(f"the student's model is {value} (from STUDENT_MODEL)")
    for name, key in (("TRAINSET", "trainset"), ("VALSET", "valset")):
        if value := env.get(name):
            changed = {**changed, key: value if value in NAMED else str(Path(value).absolute())}
            notes.append(f"{key} is {value} (from {name})")
    return changed, notes


def _below(tree: Any, at: At) -> Any:
    for part in at:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


# -- what a resumed run must have in common with its start ------------------------------------------------------------

FREE = frozenset({"source", "concurrency", "backend", "output", "trace_storage", "run_dir", "budget", "retry", "memory", "observe"})
_BY_IDENTITY = frozenset({"agents", "reflection_lm", "rim", "protocol", "seed_prompts", "fixed_prompts", "data"})


def manifest(loaded: Loaded, identities: Mapping[str, str]) -> dict[str, str]:
    """One digest for each key that decides what a run finds, so that a changed resume can be refused by the key's name.

    `identities` speaks for what acts (agents.student, rim, data, ...): what can change an answer, and not a path or a time-out.
    Left out: how fast (concurrency, retry), where to (output, trace_storage, run_dir), and `budget`: where its limits struck is
    recorded with the run, and they may be raised or lowered for what is still to come. `max_metric_calls` is in: the share kept for
    the held-out test is planned from it.
    """
    entries = {key: digest(value, 16) for key, value in loaded.resolved.items() if key not in FREE | _BY_IDENTITY}
    return entries | {key: digest(identity, 16) for key, identity in identities.items()}
