"""A DSPy program as a `GEPAAdapter`: instructions of its predictors, and demonstrations in a component of their own.

After `dspy.teleprompt.gepa.gepa_utils.DspyAdapter`, whose reflective dataset and proposer are used as they are. It differs in what a
failure is: an answer that does not parse, or a program that raises, scores `failure_score` as in dspy.GEPA; a model or agent that could not
be reached has no score, where dspy's Evaluate counts it like a wrong answer. And each example is run once: slow ones are not sent again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import dspy
from dspy.teleprompt.bootstrap_trace import FailedPrediction
from dspy.teleprompt.gepa.gepa_utils import DspyAdapter
from dspy.utils.exceptions import AdapterParseError, LMError

from gepa_atlas.bridges.gepa_edge import Rollout
from gepa_atlas.errors import AtlasError

DEMOS = "demonstrations"  # the component: JSON, by predictor a list of {field: value}; empty is the program's own
Demos = dict[str, list[dict[str, Any]]]
_UNREACHABLE = (LMError, AtlasError, ConnectionError, TimeoutError)


class ProgramAdapter(DspyAdapter):  # type: ignore[misc]
    """`program`: the student. `metric_fn(example, prediction)` gives a number or a Prediction of score and feedback."""

    def build_program(self, candidate: Mapping[str, str]) -> Any:
        program = super().build_program({name: text for name, text in candidate.items() if name != DEMOS})
        shown = read_demos(candidate.get(DEMOS, ""))
        for name, predictor in program.named_predictors():
            if name in shown:
                predictor.demos = [dspy.Example(**demo, augmented=True) for demo in shown[name]]
        return program

    def make_reflective_dataset(self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: Sequence[str]) -> Any:
        """dspy's dataset; empty, where dspy raises, when no run of the batch has anything to show."""
        if not self._flex_paths and not any(self._shows(row) for row in eval_batch.trajectories):
            return {}
        return super().make_reflective_dataset(candidate, eval_batch, components_to_update)

    def _shows(self, row: Mapping[str, Any]) -> bool:
        failed = [isinstance(prediction, FailedPrediction) for _, _, prediction in row["trace"]]
        if self.add_format_failure_as_feedback and any(failed):
            return True
        return not all(failed) and not isinstance(row["prediction"], FailedPrediction)

    def propose_new_texts(self, candidate: Any, reflective_dataset: Any, components_to_update: list[str]) -> dict[str, str]:
        """dspy's proposer. An answer of the reflection model that cannot be read is no proposal, and no failure of the model."""
        try:
            texts: dict[str, str] = super().propose_new_texts(candidate, reflective_dataset, components_to_update)
        except AdapterParseError:
            return {}
        return texts

    def evaluate(
        self, batch: Sequence[Any], candidate: Mapping[str, str], capture_traces: bool = False, num_threads: int | None = None
    ) -> Any:
        """gepa's EvaluationBatch, one trajectory for each example; a score is None where nothing could be reached."""
        if self._flex_paths:  # programs whose code is evolved: dspy's own way
            return super().evaluate(batch, candidate, capture_traces, num_threads)
        program = self.build_program(candidate)
        rows = self._parallel([(program, at, example) for at, example in enumerate(batch)])
        result = self._make_evaluation_batch([r["prediction"] for r in rows], [r["score"] for r in rows], rows if capture_traces else None)
        result.scores = [None if row["unreached"] else score for row, score in zip(rows, result.scores, strict=True)]
        result.outputs = [row["unreached"] or output for row, output in zip(rows, result.outputs, strict=True)]  # the reason of a None
        return result

    def _parallel(self, work: Sequence[tuple[Any, int, Any]]) -> list[dict[str, Any]]:
        threads = min(len(work), self.num_threads or dspy.settings.num_threads) or 1
        if threads == 1:
            return [self._run(*item) for item in work]
        contexts = [copy_context() for _ in work]  # dspy.context of the caller holds in each thread
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda context, item: context.run(self._run, *item), contexts, work))

    def _run(self, program: Any, at: int, example: Any) -> dict[str, Any]:
        """One example as dspy's TraceData."""
        row = {"example_ind": at, "example": example, "prediction": None, "trace": [], "score": self.failure_score, "unreached": None}
        with dspy.context(trace=[]):
            try:
                row["prediction"] = program(**example.inputs())
            except AdapterParseError as error:
                row["prediction"] = FailedPrediction(completion_text=error.lm_response or "")
                failed = next((p for p in program.predictors() if p.signature == error.signature), None)
                if failed is not None:
                    dspy.settings.trace.append((failed, dict(example.inputs()), row["prediction"]))
            except _UNREACHABLE as error:
                row["unreached"] = error
            except Exception as error:  # the user's program
                row["prediction"] = FailedPrediction(completion_text=f"{type(error).__name__}: {error}")
            row["trace"] = list(dspy.settings.trace)
        if row["prediction"] is not None and not isinstance(row["prediction"], FailedPrediction):
            row["score"] = self.metric_fn(example, row["prediction"])
        return row


def read_demos(text: str) -> Demos:
    return json.loads(text) if text else {}


def written_demos(demos: Demos) -> str:
    """One spelling for one set, so that equal candidates are the same candidate."""
    kept = {name: rows for name, rows in sorted(demos.items())}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True)


def labelled(program: Any, trainset: Sequence[Any]) -> Demos:
    """By predictor: train examples that have all of its inputs and at least one of its outputs."""
    found: Demos = {}
    for name, predictor in program.named_predictors():
        inputs, outputs = list(predictor.signature.input_fields), list(predictor.signature.output_fields)
        rows = [_row(example, [*inputs, *outputs]) for example in trainset]
        found[name] = [row for row in rows if all(f in row for f in inputs) and any(f in row for f in outputs)]
    return found


def verified(program: Any, rollouts: Sequence[Rollout], least: float) -> Demos:
    """By predictor: what it was given and what it answered in runs of train examples that scored `least` or more."""
    names = {predictor.stage: name for name, predictor in program.named_predictors()}
    found: Demos = {name: [] for name in names.values()}
    for rollout in rollouts:
        if rollout.cell is None or rollout.cell.score < least or not rollout.batch.trajectories:
            continue
        for predictor, inputs, prediction in rollout.batch.trajectories[rollout.at]["trace"]:
            name = names.get(predictor.stage)
            fields = {**inputs, **dict(prediction.items())} if isinstance(prediction, dspy.Prediction) else {}
            row = _row(fields, [*predictor.signature.input_fields, *predictor.signature.output_fields])
            if name is not None and row not in found[name]:
                found[name].append(row)
    return found


def _row(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The named fields that JSON can hold."""
    return {name: fields[name] for name in names if name in fields and _is_json(fields[name])}


def _is_json(value: Any) -> bool:
    if isinstance(value, str | int | float | bool) or value is None:
        return True
    if isinstance(value, list | tuple):
        return all(_is_json(part) for part in value)
    return isinstance(value, dict) and all(isinstance(k, str) and _is_json(v) for k, v in value.items())
