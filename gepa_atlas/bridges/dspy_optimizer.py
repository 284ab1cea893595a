"""`GEPAAtlas`: a dspy.Teleprompter with the call shape of dspy.GEPA and our search behind it (docs/bridges.md)."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dspy
from dspy.teleprompt.gepa.gepa import AUTO_RUN_SETTINGS, GEPA, DspyGEPAResult
from dspy.teleprompt.gepa.gepa_flex_utils import enumerate_flex_submodules
from dspy.teleprompt.gepa.gepa_utils import LoggerAdapter
from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer
from dspy.teleprompt.teleprompt import Teleprompter

from gepa_atlas.bridges.dspy_adapter import DEMOS, ProgramAdapter, labelled, verified
from gepa_atlas.bridges.dspy_operators import demos_operator, house_operator, shown_examples
from gepa_atlas.bridges.gepa import OptionRefused, optimize
from gepa_atlas.bridges.gepa_book import Cell
from gepa_atlas.bridges.gepa_edge import Rollout
from gepa_atlas.bridges.gepa_search import Operator
from gepa_atlas.propose.ablate import Ablate
from gepa_atlas.propose.edit import Edit, EditOptions
from gepa_atlas.types import Component

logger = logging.getLogger(__name__)
OPERATORS = ("reflect", "demos", "edit", "ablate")
_NOT_OURS = {
    "candidate_selection_strategy": ("pareto", "parents are chosen by the search"),
    "use_wandb": (False, "give gepa_kwargs={'callbacks': [...]}: their events carry the same figures"),
    "wandb_api_key": (None, "give gepa_kwargs={'callbacks': [...]}: their events carry the same figures"),
    "wandb_init_kwargs": (None, "give gepa_kwargs={'callbacks': [...]}: their events carry the same figures"),
    "use_mlflow": (False, "give gepa_kwargs={'callbacks': [...]}: their events carry the same figures"),
}  # fmt: skip


class GEPAAtlas(Teleprompter):  # type: ignore[misc]
    """As dspy.GEPA, with these differences.

    operators: what may change a program. `reflect` (needs reflection_lm or instruction_proposer), `demos` (demonstrations from labelled and
    verified train examples, at most `max_demos` a predictor), `edit` and `ablate` (lines of the instructions, without a model).
    reflection_lm may be left out: then the others search. `teacher` may be given: its verified runs on train examples are demonstrations.
    max_metric_calls is a hard limit, the teacher's runs included.
    """

    def __init__(
        self,
        metric: Callable[..., Any],
        *,
        auto: Literal["light", "medium", "heavy"] | None = None,
        max_full_evals: int | None = None,
        max_metric_calls: int | None = None,
        reflection_minibatch_size: int = 3,
        reflection_lm: Any = None,
        skip_perfect_score: bool = True,
        add_format_failure_as_feedback: bool = False,
        instruction_proposer: Any = None,
        code_proposer: Any = None,
        component_selector: Any = "round_robin",
        use_merge: bool = True,
        max_merge_invocations: int | None = 5,
        num_threads: int | None = None,
        failure_score: float = 0.0,
        perfect_score: float = 1.0,
        log_dir: str | None = None,
        track_stats: bool = False,
        track_best_outputs: bool = False,
        warn_on_score_mismatch: bool = True,
        seed: int | None = 0,
        gepa_kwargs: Mapping[str, Any] | None = None,
        operators: Sequence[str] = OPERATORS,
        max_demos: int = 4,
        **others: Any,
    ) -> None:
        super().__init__()
        for name, value in others.items():
            _refuse(name, value)
        try:
            inspect.signature(metric).bind(None, None, None, None, None)
        except TypeError:
            raise OptionRefused("metric: it must take (gold, pred, trace, pred_name, pred_trace), as dspy.GEPA's does") from None
        if sum(limit is not None for limit in (auto, max_full_evals, max_metric_calls)) != 1:
            raise OptionRefused("give exactly one of auto, max_full_evals and max_metric_calls")
        if auto is not None and auto not in AUTO_RUN_SETTINGS:
            raise OptionRefused(f"auto={auto!r}: it is one of {', '.join(AUTO_RUN_SETTINGS)}")
        for name in operators:
            if name not in OPERATORS:
                raise OptionRefused(f"operators: {name!r} is not one of {', '.join(OPERATORS)}")
        if track_best_outputs and not track_stats:
            raise OptionRefused("track_best_outputs=True: they are in detailed_results; set track_stats=True too")
        self.metric, self.auto, self.max_full_evals, self.max_metric_calls = metric, auto, max_full_evals, max_metric_calls
        self.reflection_minibatch_size, self.reflection_lm = reflection_minibatch_size, reflection_lm
        self.skip_perfect_score = skip_perfect_score
        self.add_format_failure_as_feedback, self.component_selector = add_format_failure_as_feedback, component_selector
        self.instruction_proposer, self.code_proposer = instruction_proposer, code_proposer
        self.use_merge, self.max_merge_invocations, self.num_threads = use_merge, max_merge_invocations, num_threads
        self.failure_score, self.perfect_score, self.log_dir = failure_score, perfect_score, log_dir
        self.track_stats, self.track_best_outputs, self.warn_on_score_mismatch = track_stats, track_best_outputs, warn_on_score_mismatch
        self.seed, self.gepa_kwargs, self.operators, self.max_demos = seed or 0, dict(gepa_kwargs or {}), tuple(operators), max_demos

    def compile(self, student: Any, *, trainset: list[Any], teacher: Any = None, valset: list[Any] | None = None) -> Any:
        """The student with the best instructions and demonstrations found; the student as it was when nothing was better."""
        if not isinstance(student, dspy.Module):
            raise OptionRefused(f"student: a {type(student).__name__} is no program; give an instance of a dspy.Module, MyProgram()")
        if not trainset:
            raise OptionRefused("trainset is empty; give dspy.Examples to learn from")
        adapter, texts = self._adapter(student), _components(student)
        budget = self._budget(len(texts), len(trainset), None if valset is None else len(valset))
        demonstrates = "demos" in self.operators and valset is not None
        demos = labelled(student, trainset) if demonstrates else {}
        if valset is None:
            logger.warning("no valset: the trainset selects too, so nothing is known of unseen examples, and demonstrations are left out")
        if teacher is not None and not demonstrates:
            logger.warning("the teacher is not used: its runs are demonstrations, which need a valset and `demos` among the operators")
        elif teacher is not None:
            budget -= self._learn(teacher[0] if isinstance(teacher, list) else teacher, trainset, demos, budget // 4)
        seed = texts | ({DEMOS: ""} if demonstrates else {})
        merges = self.use_merge and len(seed) > 1
        most = 10**9 if self.max_merge_invocations is None else self.max_merge_invocations
        result = optimize(
            seed_candidate=seed,
            trainset=trainset,
            valset=valset,
            adapter=adapter,
            module_selector=_OnlyTexts(self.component_selector, tuple(texts)),
            reflection_minibatch_size=self.reflection_minibatch_size,
            skip_perfect_score=self.skip_perfect_score,
            perfect_score=self.perfect_score,
            use_merge=merges,
            max_merge_invocations=most if merges else 5,
            max_metric_calls=budget,
            logger=LoggerAdapter(logger),
            run_dir=self.log_dir,
            track_best_outputs=self.track_best_outputs,
            seed=self.seed,
            operators=self._operators(student, texts, demos),
            reflect=self._reflects,
            **self.gepa_kwargs,
        )
        program = adapter.build_program(result.best_candidate)
        if self.track_stats:
            program.detailed_results = _detailed(result, adapter)
        return program

    @property
    def _reflects(self) -> bool:
        return "reflect" in self.operators and (self.reflection_lm is not None or self.instruction_proposer is not None)

    def _adapter(self, program: Any) -> ProgramAdapter:
        return ProgramAdapter(
            student_module=program,
            metric_fn=self.metric,
            feedback_map={name: _feedback(self.metric, name, predictor) for name, predictor in program.named_predictors()},
            failure_score=self.failure_score,
            num_threads=self.num_threads,
            add_format_failure_as_feedback=self.add_format_failure_as_feedback,
            rng=random.Random(self.seed),
            reflection_lm=self.reflection_lm,
            custom_instruction_proposer=self.instruction_proposer or InstructionProposer(),
            custom_code_proposer=self.code_proposer,
            warn_on_score_mismatch=self.warn_on_score_mismatch,
            reflection_minibatch_size=self.reflection_minibatch_size,
        )

    def _budget(self, components: int, train: int, val: int | None) -> int:
        """The same number of metric calls that dspy.GEPA gives itself; here it is a limit that is never passed."""
        if self.max_metric_calls is not None:
            return self.max_metric_calls
        if self.max_full_evals is not None:
            return self.max_full_evals * (train + (val or 0))
        assert self.auto is not None
        size = train if val is None else val
        calls = GEPA.auto_budget(self, num_preds=max(components, 1), num_candidates=AUTO_RUN_SETTINGS[self.auto]["n"], valset_size=size)
        return int(calls)

    def _learn(self, teacher: Any, trainset: Sequence[Any], demos: dict[str, list[dict[str, Any]]], most: int) -> int:
        """Runs of the teacher on train examples; what it got right becomes demonstrations. Returns the metric calls."""
        batch = list(trainset)[: min(len(trainset), 4 * self.max_demos, most)]
        result = self._adapter(teacher).evaluate(batch, {}, capture_traces=True)
        runs = [Rollout(None if s is None else Cell(at, s), None, result, at) for at, s in enumerate(result.scores)]
        for name, rows in verified(teacher, runs, self.perfect_score).items():
            if name in demos:
                demos[name] += [row for row in rows if row not in demos[name]]
        return len(batch)

    def _operators(self, student: Any, texts: Mapping[str, str], demos: Mapping[str, list[dict[str, Any]]]) -> dict[str, Operator]:
        found: dict[str, Operator] = {}
        outputs = {name: list(p.signature.output_fields) for name, p in student.named_predictors()}
        components = [Component(name) for name in texts if name in outputs]
        pool = shown_examples(demos, outputs) if demos else ()
        if demos:
            found["demos"] = demos_operator(student, dict(demos), self.max_demos, self.perfect_score)
        if "edit" in self.operators and components:
            found["edit"] = house_operator(Edit(EditOptions()), components, pool)
        if "ablate" in self.operators and components:
            found["ablate"] = house_operator(Ablate(), components, pool)
        return found


def _refuse(name: str, value: Any) -> None:
    if name not in _NOT_OURS:
        raise TypeError(f"GEPAAtlas.__init__() got an unexpected keyword argument {name!r}")
    default, why = _NOT_OURS[name]
    if value != default:
        raise OptionRefused(f"{name}={value!r} is not supported: {why}; leave it out, or use dspy.GEPA for this run")


def _components(student: Any) -> dict[str, str]:
    """Instructions by predictor, and the source of each dspy.Flex."""
    texts = {name: predictor.signature.instructions for name, predictor in student.named_predictors()}
    texts |= {path: flex.module_src for path, flex in enumerate_flex_submodules(student).items()}
    if not texts:
        raise OptionRefused("the program has no predictor, so there is no instruction to improve; give a program with a dspy.Predict in it")
    return texts


@dataclass(frozen=True)
class _OnlyTexts:
    """The component selector of the caller, kept to instructions and code: demonstrations are not reflected on."""

    chosen: Any
    texts: tuple[str, ...]

    def __call__(self, state: Any, trajectories: Any, scores: Any, index: int, candidate: dict[str, str]) -> list[str]:
        from gepa.strategies.component_selector import AllReflectionComponentSelector, RoundRobinReflectionComponentSelector

        known = {"round_robin": RoundRobinReflectionComponentSelector, "all": AllReflectionComponentSelector}
        select = known[self.chosen]() if isinstance(self.chosen, str) else self.chosen
        for _ in candidate:
            names = [name for name in select(state, trajectories, scores, index, candidate) if name in self.texts]
            if names:
                return names
        return list(self.texts[:1])


def _feedback(metric: Callable[..., Any], name: str, predictor: Any) -> Callable[..., Any]:
    """What the metric says of one predictor's part in a run, as dspy.GEPA asks for it."""

    def feedback(predictor_output: Any, predictor_inputs: Any, module_inputs: Any, module_outputs: Any, captured_trace: Any) -> Any:
        said = metric(module_inputs, module_outputs, captured_trace, name, [(predictor, predictor_inputs, predictor_output)])
        score = said["score"] if isinstance(said, dspy.Prediction | dict) else said
        text = said.get("feedback") if isinstance(said, dspy.Prediction | dict) else None
        return {"score": score, "feedback": text or f"This trajectory got a score of {score}."}

    return feedback


@dataclass(frozen=True)
class AtlasDspyResult(DspyGEPAResult):  # type: ignore[misc]
    """dspy.GEPA's detailed results; `best_idx` is the candidate that our search believes in (see `AtlasGEPAResult`)."""

    chosen: int = 0
    better_than_seed: float = 0.0

    @property
    def best_idx(self) -> int:
        return self.chosen


def _detailed(result: Any, adapter: ProgramAdapter) -> AtlasDspyResult:
    plain = DspyGEPAResult.from_gepa_result(result, adapter)
    return AtlasDspyResult(**vars(plain), chosen=result.best_idx, better_than_seed=result.better_than_seed)


__all__ = ["GEPAAtlas"]
