"""Stage `optimize`: the run whose lessons are trained on, where the configuration names how to make one instead of its traces.

The run lies in optimize/ and is an ordinary one: killed, it goes on from what it was answered; finished, it makes no call.
"""

from __future__ import annotations

from gepa_atlas import loop
from gepa_atlas.build import build_experiment, notes
from gepa_atlas.cli.session import PROMPTS, TRACES, export, to_record
from gepa_atlas.config import Loaded, load_config
from gepa_atlas.evolve.engine import Evolution
from gepa_atlas.handoff.workspace import Progress, StageResult, Workspace
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.types import Decision, digest


def inputs(work: Workspace, config: TrainConfig) -> dict[str, str]:
    """What decides the run: its configuration, data, student and judges. Raises ConfigError, DataError, MissingExtra."""
    return {"experiment": digest(build_experiment(_loaded(work, config)).manifest)}


def run(work: Workspace, config: TrainConfig) -> StageResult:
    """Raises what an optimization raises."""
    loaded = _loaded(work, config)
    experiment = build_experiment(loaded)
    result = loop.run(experiment, work.folder, _Watching(work.progress, experiment.plan.rollouts))
    record = to_record(result, notes(loaded, experiment.dataset))
    export(record, result, loaded)
    verdict = result.verdict
    figures = {"rollouts": result.rollouts, "ruling": verdict.ruling.value, "gain": verdict.gain, "digest": result.digest}
    return StageResult((PROMPTS, TRACES), figures)


def _loaded(work: Workspace, config: TrainConfig) -> Loaded:
    """The configuration of the run, which is kept here and nowhere else."""
    assert config.optimize is not None
    return load_config(work.input_path(config.optimize), ("run_dir=null", "output=null", "trace_storage=null"))


class _Watching(loop.Silent):
    def __init__(self, progress: Progress, rollouts: int | None) -> None:
        self._progress, self._rollouts = progress, rollouts

    def decided(self, decision: Decision, evolution: Evolution) -> None:
        self._progress.step("rollouts", evolution.budget.spent, self._rollouts)
