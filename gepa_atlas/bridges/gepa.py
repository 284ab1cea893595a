"""`gepa.optimize` with our search behind it: the same call, the same adapters, stoppers, callbacks and result (docs/bridges.md).

Everything else a caller touches is the gepa package's own: `GEPAAdapter`, `EvaluationBatch`, stoppers, component selectors, the reflection
prompt, `GEPAState` and `GEPAResult`. What our search decides by itself cannot be set: such an option is refused by its name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from gepa_atlas.bridges.gepa_book import Book, Texts
from gepa_atlas.bridges.gepa_edge import Runner, TextWriter, optional
from gepa_atlas.bridges.gepa_ledger import Ledger
from gepa_atlas.bridges.gepa_search import MERGE, REFLECT, Operator, Options, Search
from gepa_atlas.errors import ConfigError, MissingExtra
from gepa_atlas.evolve.planner import Plan
from gepa_atlas.evolve.portfolio import Operator as Named
from gepa_atlas.types import digest


class OptionRefused(ConfigError, ValueError):
    """An option of gepa.optimize that is wrong, or that our search does not have; a ValueError, as gepa raises."""


# Options that only gepa's own search reads, the value that is its default, and why ours has none.
_OURS_DECIDES = {
    "candidate_selection_strategy": ("pareto", "parents are drawn from the posterior over all candidates, some as specialists by lexicase"),
    "frontier_type": ("instance", "the search keeps one value for each example; objective scores are recorded, not searched on"),
    "batch_sampler": ("epoch_shuffled", "examples to reflect on are chosen by what the parent fails at"),
    "merge_val_overlap_floor": (5, "a merged candidate is tried on validation examples like any other"),
    "val_evaluation_policy": (None, "a candidate is measured as far as it is worth it, the best few on all examples"),
    "acceptance_criterion": ("strict_improvement", "a candidate stays while it may be better than its parent on unread examples"),
    "sampling_strategy": (None, "the search plans its proposals itself, one at a time"),
    "selection_strategy": (None, "the search plans its proposals itself, one at a time"),
    "use_cloudpickle": (False, "nothing is pickled: a run_dir holds scores and texts"),
    "use_wandb": (False, "give a callback: its events carry the same figures"),
    "wandb_api_key": (None, "give a callback: its events carry the same figures"),
    "wandb_init_kwargs": (None, "give a callback: its events carry the same figures"),
    "wandb_attach_existing": (False, "give a callback: its events carry the same figures"),
    "use_mlflow": (False, "give a callback: its events carry the same figures"),
    "mlflow_tracking_uri": (None, "give a callback: its events carry the same figures"),
    "mlflow_experiment_name": (None, "give a callback: its events carry the same figures"),
    "mlflow_attach_existing": (False, "give a callback: its events carry the same figures"),
    "tracking_key_prefix": ("", "give a callback: its events carry the same figures"),
}  # fmt: skip


# Other spellings of those defaults.
_SAME = {
    "EpochShuffledBatchSampler": "batch_sampler",
    "FullEvaluationPolicy": "val_evaluation_policy",
    "StrictImprovementAcceptance": "acceptance_criterion",
    "SingleMutationSampling": "sampling_strategy",
    "AllImprovements": "selection_strategy",
    "ParetoCandidateSelector": "candidate_selection_strategy",
}


def upstream() -> ModuleType:
    """The gepa package."""
    if importlib.util.find_spec("gepa") is None:
        raise MissingExtra("gepa_atlas.compat.gepa", "gepa")
    return importlib.import_module("gepa")


def optimize(
    seed_candidate: Texts,
    trainset: Any,
    valset: Any = None,
    adapter: Any = None,
    task_lm: Any = None,
    evaluator: Any = None,
    reflection_lm: Any = None,
    reflection_lm_kwargs: Mapping[str, Any] | None = None,
    *,
    skip_perfect_score: bool = True,
    reflection_minibatch_size: int | None = None,
    perfect_score: float | None = 1.0,
    reflection_prompt_template: str | Mapping[str, str] | None = None,
    custom_candidate_proposer: Callable[..., Texts] | None = None,
    module_selector: Any = "round_robin",
    use_merge: bool = False,
    max_merge_invocations: int = 5,
    max_metric_calls: int | None = None,
    max_reflection_cost: float | None = None,
    stop_callbacks: Any = None,
    logger: Any = None,
    run_dir: str | None = None,
    callbacks: Sequence[Any] | None = None,
    track_best_outputs: bool = True,
    display_progress_bar: bool = False,
    cache_evaluation: bool = False,
    seed: int = 0,
    raise_on_exception: bool = True,
    reflection_strategy: Any = None,
    operators: Mapping[str, Operator] | None = None,
    reflect: bool = True,
    **others: Any,
) -> Any:
    """A `GEPAResult` of our search with gepa's call. docs/bridges.md has the options. Ours: `operators` change texts beside reflection, and
    `reflect=False` leaves that out.

    `max_metric_calls` is a hard limit. Raises OptionRefused (a ValueError) by the option's name, or what the adapter raises.
    """
    upstream()
    for name, value in others.items():
        _refuse_foreign(name, value)
    _check_seed(seed_candidate)
    if max_metric_calls is not None and max_metric_calls < 2:
        raise OptionRefused(f"max_metric_calls={max_metric_calls!r}: the seed and one candidate need one each; give 2 or more")
    if skip_perfect_score and perfect_score is None:
        raise OptionRefused("perfect_score=None: skip_perfect_score=True compares with it; give a score, or skip_perfect_score=False")
    if max_merge_invocations != 5 and not use_merge:
        raise OptionRefused(f"max_merge_invocations={max_merge_invocations!r}: it is for use_merge=True")
    writing = _Writing(reflection_lm, reflection_lm_kwargs, reflection_prompt_template, custom_candidate_proposer, reflection_strategy)
    named = _named(reflection_minibatch_size or 3 if reflect else None, use_merge, operators or {})
    options = Options(
        Plan(seed=seed, width=1, rollouts=max_metric_calls, operators=named, repeats=not cache_evaluation),
        _selector(module_selector),
        _stoppers(stop_callbacks, run_dir, max_reflection_cost, writing, max_metric_calls is not None),
        perfect_score,
        skip_perfect_score,
        max_merge_invocations,
        display_progress_bar,
        _log(logger),
        operators or {},
    )
    train, val = _loader(trainset, "trainset"), None if valset is None else _loader(valset, "valset")
    acting = _acting(adapter, task_lm, evaluator)
    writer = writing.build(acting, options.log)
    book = Book(dict(seed_candidate), list(callbacks or ()), track_best_outputs, max_metric_calls, len(train if val is None else val))
    config = {"bridge": "gepa", "seed_candidate": dict(seed_candidate), "max_metric_calls": max_metric_calls}
    manifest = {} if run_dir is None else _manifest(seed_candidate, train, val, options.plan, acting)
    ledger = Ledger(run_dir, manifest, config)
    runner = Runner(acting, book, ledger, raise_on_exception, options.log)
    return _searched(Search(book.seed, train, train if val is None else val, val is None, runner, writer, options), run_dir, seed)


def _searched(search: Search, run_dir: str | None, seed: int) -> Any:
    book, finished = search.book, False
    about = {"perfect_score": search.options.perfect_score, "seed": seed, "track_best_outputs": book.keep_outputs}
    sizes = {"trainset_size": len(search.train), "valset_size": book.valset_size}
    try:
        book.notify("on_optimization_start", seed_candidate=dict(book.seed), **sizes, config=about)
        search.run()
        finished = True
    finally:
        search.runner.ledger.close(finished=finished)
    return _result(search, book, run_dir, seed)


# -- the result -------------------------------------------------------------------------------------------------------


@cache
def result_class() -> Any:
    """`AtlasGEPAResult`: gepa's result, whose best candidate is the one that our search believes in."""
    from gepa import GEPAResult

    @dataclass(frozen=True)
    class AtlasGEPAResult(GEPAResult):  # type: ignore[misc]
        """A GEPAResult. A mean over few validation examples is worth little, so `best_idx` is not the largest of `val_aggregate_scores`
        but the largest posterior mean; `better_than_seed` is the probability that it is truly better than the seed."""

        chosen: int = 0
        better_than_seed: float = 0.0
        stop_reason: str = ""

        @property
        def best_idx(self) -> int:
            return self.chosen

    return AtlasGEPAResult


def _result(search: Search, book: Book, run_dir: str | None, seed: int) -> Any:
    from gepa import GEPAResult

    best = search.best()
    reason = search.evolution.stop_reason or "a stopper, or the limit of metric calls, ended the run"
    book.notify(
        "on_optimization_end",
        best_candidate_idx=best,
        total_iterations=book.state.i + 1,
        total_metric_calls=book.calls,
        final_state=book.state,
    )
    plain = GEPAResult.from_state(book.state, run_dir=run_dir, seed=seed)
    return result_class()(**vars(plain), chosen=best, better_than_seed=search.chance(best), stop_reason=reason)


# -- reading the options ----------------------------------------------------------------------------------------------


def _check_seed(seed: Any) -> None:
    if not seed:
        raise OptionRefused("seed_candidate must contain at least one component text.")
    if not isinstance(seed, Mapping):
        raise OptionRefused(f"seed_candidate={seed!r:.80}: it is a mapping of component names to texts, {{'system_prompt': '...'}}")


def _named(reads: int | None, merge: bool, others: Collection[str]) -> tuple[Named, ...]:
    """The operators of the search; `reads` train examples for reflection, None where there is none."""
    if reads is None and not others:
        raise OptionRefused("reflect=False: then operators must be given, or nothing would ever change")
    found = ({} if reads is None else {REFLECT: reads}) | ({MERGE: 0} if merge else {}) | dict.fromkeys(others, 0)
    return tuple(Named(name, read) for name, read in found.items())


def _refuse_foreign(name: str, value: Any) -> None:
    if name not in _OURS_DECIDES:
        raise TypeError(f"optimize() got an unexpected keyword argument {name!r}")
    default, why = _OURS_DECIDES[name]
    same = _SAME.get(type(value).__name__) == name or (name == "val_evaluation_policy" and value == "full_eval")
    if value != default and not same:
        shown = value if isinstance(value, str | int | float) else type(value).__name__
        raise OptionRefused(f"{name}={shown!r} is not supported: {why}; leave it out, or use gepa itself for this run")


def _acting(adapter: Any, task_lm: Any, evaluator: Any) -> Any:
    if adapter is not None:
        for name, given in (("task_lm", task_lm), ("evaluator", evaluator)):
            if given is not None:
                raise OptionRefused(f"{name} is for gepa's default adapter; leave it out, the adapter given runs the task itself")
        return adapter
    if task_lm is None:
        raise OptionRefused("give an adapter, or a task_lm for gepa's default adapter")
    from gepa.adapters.default_adapter.default_adapter import DefaultAdapter

    return DefaultAdapter(model=task_lm, evaluator=evaluator)


@dataclass
class _Writing:
    """Who writes new texts: the adapter, the caller, or a model behind gepa's reflection prompt."""

    lm: Any
    lm_kwargs: Mapping[str, Any] | None
    template: str | Mapping[str, str] | None
    custom: Callable[..., Texts] | None
    strategy: Any

    def __post_init__(self) -> None:
        if self.lm_kwargs and not isinstance(self.lm, str):
            raise OptionRefused("reflection_lm_kwargs is for a reflection_lm that is named by a string")
        if isinstance(self.lm, str):
            from gepa.lm import LM

            self.lm = LM(self.lm, **(self.lm_kwargs or {}))
        elif self.lm is not None and optional(self.lm, "total_cost") is None:
            from gepa.lm import TrackingLM

            self.lm = TrackingLM(self.lm)

    def build(self, adapter: Any, log: Callable[[str], None]) -> TextWriter:
        from gepa.proposer.reflective_mutation.reflection_lm import StatelessReflectionLM
        from gepa.strategies.instruction_proposal import InstructionProposalSignature

        for template in self.template.values() if isinstance(self.template, Mapping) else [self.template]:
            InstructionProposalSignature.validate_prompt_template(template)
        own = optional(adapter, "propose_new_texts")
        if own is not None and self.custom is not None:
            raise OptionRefused("custom_candidate_proposer: the adapter has propose_new_texts; only one of them can propose")
        if own is not None and self.template is not None:
            raise OptionRefused("reflection_prompt_template: the adapter proposes by itself (propose_new_texts), so it would not be read")
        if self.strategy is not None and (own is not None or self.custom is not None):
            raise OptionRefused("reflection_strategy: the adapter or custom_candidate_proposer proposes already, so it would not be read")
        reflection = self.strategy
        if reflection is None and own is None and self.custom is None:
            if self.lm is None:
                raise OptionRefused(
                    "reflection_lm: give a model, a reflection_strategy, a custom_candidate_proposer, or an adapter that proposes"
                )
            given = dict(self.template) if isinstance(self.template, Mapping) else self.template
            reflection = StatelessReflectionLM(self.lm, given, _Logger(log))
        return TextWriter(adapter, self.custom, reflection, log)


@dataclass(frozen=True)
class _Logger:
    log: Callable[[str], None]


def _log(logger: Any) -> Callable[[str], None]:
    if logger is None:
        return print
    log: Callable[[str], None] = logger.log
    return log


def _loader(data: Any, name: str) -> Any:
    from gepa.core.data_loader import ensure_loader

    loader = ensure_loader(data)
    if len(loader) == 0:
        raise OptionRefused(f"{name} is empty; a search needs at least one example")
    return loader


def _stoppers(given: Any, run_dir: str | None, max_cost: float | None, writing: _Writing, limited: bool) -> list[Callable[[Any], bool]]:
    from gepa.utils import FileStopper, MaxReflectionCostStopper

    stoppers: list[Any] = [] if given is None else list(given) if isinstance(given, Sequence) else [given]
    if max_cost is not None:
        source = writing.strategy if writing.strategy is not None else writing.lm
        if optional(source, "total_cost") is None:
            raise OptionRefused("max_reflection_cost: what reflects has no total_cost, so the limit would never be noticed; remove it")
        stoppers.append(MaxReflectionCostStopper(max_cost, reflection_lm=source))
    if not stoppers and not limited:
        raise OptionRefused("give max_metric_calls, max_reflection_cost or stop_callbacks: without one the run would never end")
    if run_dir is not None:
        stoppers.append(FileStopper(os.path.join(run_dir, "gepa.stop")))
    return stoppers


def _selector(given: Any) -> Any:
    from gepa.strategies.component_selector import AllReflectionComponentSelector, RoundRobinReflectionComponentSelector

    known = {"round_robin": RoundRobinReflectionComponentSelector, "all": AllReflectionComponentSelector}
    if isinstance(given, str):
        if given not in known:
            raise OptionRefused(f"module_selector={given!r}: it is one of {', '.join(known)}, or a ReflectionComponentSelector")
        return known[given]()
    return given


def _manifest(seed: Texts, train: Any, val: Any, plan: Plan, adapter: Any) -> dict[str, str]:
    """What may not change between the start of a run_dir and its resume."""
    return {
        "seed_candidate": digest(dict(seed)),
        "trainset": _fingerprint(train),
        "valset": "" if val is None else _fingerprint(val),
        "options": digest([plan.seed, plan.rollouts, plan.repeats, [[o.name, o.reads] for o in plan.operators]]),
        "adapter": f"{type(adapter).__module__}.{type(adapter).__qualname__}",
    }


def _fingerprint(loader: Any) -> str:
    """What the examples show of themselves, without addresses in memory."""
    ids = list(loader.all_ids())
    return digest([[str(i), re.sub(r"0x[0-9a-f]+", "", repr(x))] for i, x in zip(ids, loader.fetch(ids), strict=True)])


__all__ = ["OptionRefused", "optimize", "result_class", "upstream"]
