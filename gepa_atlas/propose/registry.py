"""From configuration to operators. A new operator is a file and a line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.ports import ChatModel, Proposer
from gepa_atlas.propose.ablate import Ablate, AblateOptions
from gepa_atlas.propose.demos import Demos, DemosOptions
from gepa_atlas.propose.diagnose import Diagnose, DiagnoseOptions
from gepa_atlas.propose.edit import Edit, EditOptions
from gepa_atlas.propose.merge import Merge, MergeOptions
from gepa_atlas.propose.recall import Recall, RecallOptions
from gepa_atlas.propose.recombine import Recombine, RecombineOptions
from gepa_atlas.propose.reflect import Reflect, ReflectOptions
from gepa_atlas.propose.restart import Restart, RestartOptions
from gepa_atlas.propose.revise import Revise, ReviseOptions
from gepa_atlas.settings import load
from gepa_atlas.types import Component

Options = Mapping[str, Any]
_PURE: dict[str, Callable[[Options, str], Proposer]] = {
    "demos": lambda options, where: Demos(load(DemosOptions, options, where)),
    "edit": lambda options, where: Edit(load(EditOptions, options, where)),
    "ablate": lambda options, where: Ablate(load(AblateOptions, options, where)),
    "merge": lambda options, where: Merge(load(MergeOptions, options, where)),
    "restart": lambda options, where: Restart(load(RestartOptions, options, where)),
    "recall": lambda options, where: Recall(load(RecallOptions, options, where)),
    "recombine": lambda options, where: Recombine(load(RecombineOptions, options, where)),
}
_MODEL: dict[str, Callable[[ChatModel, Options, str], Proposer]] = {
    "reflect": lambda model, options, where: Reflect(model, load(ReflectOptions, options, where)),
    "diagnose": lambda model, options, where: Diagnose(model, load(DiagnoseOptions, options, where)),
    "revise": lambda model, options, where: Revise(model, load(ReviseOptions, options, where)),
}
NEEDS_MODEL = frozenset(_MODEL)
DEFAULT = ("demos", "edit", "ablate", "merge")
WITH_MODEL = (*DEFAULT, "reflect", "diagnose")


def build_proposers(
    names: Sequence[str] | None = None,
    *,
    model: ChatModel | None = None,
    options: Mapping[str, Options] | None = None,
    components: Sequence[Component] = (),
    where: str = "operators",
) -> dict[str, Proposer]:
    """Operators by name, in the order given; the default portfolio when none are named. ConfigError names the fix.

    `components` are those of the protocol: fragments given for a component that does not exist are refused.
    """
    names = tuple(names) if names is not None else WITH_MODEL if model is not None else DEFAULT
    options = options or {}
    if not names:
        raise ConfigError(f"{where}: the list is empty; name at least one of {', '.join([*_PURE, *_MODEL])}, or leave it out")
    for name in (*names, *options):
        if name not in _PURE and name not in _MODEL:
            near = difflib.get_close_matches(name, [*_PURE, *_MODEL], 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known operators: {', '.join([*_PURE, *_MODEL])}"
            raise ConfigError(f"{where}: {name!r} is not an operator; {hint}")
    for name in options:
        if name not in names:
            raise ConfigError(
                f"{where}: options are given for {name!r}, which is not in use; add it to the operators or remove its options"
            )
    built: dict[str, Proposer] = {}
    for name in names:
        given, path = options.get(name, {}), f"{where}.{name}"
        if name in _PURE:
            built[name] = _PURE[name](given, path)
        elif model is None:
            raise ConfigError(
                f"{where}: {name!r} needs a reflection model; configure one (reflection_lm), or use {', '.join(_PURE)}, which need none"
            )
        else:
            built[name] = _MODEL[name](model, given, path)
    _check_fragments(options, components, where)
    return built


def _check_fragments(options: Mapping[str, Options], components: Sequence[Component], where: str) -> None:
    fragments = options.get("edit", {}).get("fragments", ())
    known = [c.name for c in components]
    for name in fragments if isinstance(fragments, dict) and known else ():
        if name not in known:
            raise ConfigError(f"{where}.edit.fragments: there is no component {name!r}; the protocol has {', '.join(known)}")
