"""GEPAAtlas in the place of dspy.GEPA, and agents of ours as DSPy programs."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dspy", reason="the extra [dspy] is not installed; [dev] has it")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of dspy's own imports
    import dspy
    from dspy.teleprompt import GEPA, BetterTogether, MIPROv2

from benchmarks import dspy_tutorial
from gepa_atlas.dspy import AgentModule, GEPAAtlas
from gepa_atlas.errors import AgentCrashed, ConfigError, Outage
from gepa_atlas.llm.local import LocalModel
from gepa_atlas.llm.serve import serving
from tests.bridges.toy_lm import ADVICE, ToyLM, examples, metric

TRAIN, VAL, TEST = examples(0, 12), examples(12, 30), examples(30, 40)
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("dspy").setLevel(logging.ERROR)
    yield


@pytest.fixture
def toy() -> Iterator[ToyLM]:
    lm = ToyLM()
    with dspy.context(lm=lm):
        yield lm


def exact(gold: Any, pred: Any, trace: Any = None) -> float:
    return float(metric(gold, pred).score)


def score(program: Any, devset: list[Any] = TEST) -> float:
    return float(dspy.Evaluate(devset=devset, metric=exact, num_threads=4)(program).score)


def optimizer(**given: Any) -> Any:
    options: dict[str, Any] = {"metric": metric, "num_threads": 4, "track_stats": True}
    if not {"auto", "max_full_evals"} & given.keys():
        options["max_metric_calls"] = 100
    return GEPAAtlas(**{**options, **given})


def student() -> Any:
    return dspy.Predict("question -> answer")


@pytest.mark.parametrize("operators", [("reflect",), ("demos",), ("reflect", "demos", "edit", "ablate")], ids="+".join)
def test_a_program_improves_within_the_limit_and_saves(operators: tuple[str, ...], toy: ToyLM, tmp_path: Path) -> None:
    program = student()
    before = score(program)
    toy.calls = 0
    better = optimizer(reflection_lm=toy, operators=operators).compile(program, trainset=TRAIN, valset=VAL)
    assert toy.calls - toy.reflections <= 100
    assert (before, score(better)) == (0.0, 100.0) and score(program) == 0.0, "the student itself is left as it was"
    if operators == ("reflect",):
        assert better.signature.instructions == ADVICE and not better.demos
    if operators == ("demos",):
        assert len(better.demos) >= 2 and better.signature.instructions == program.signature.instructions
    results = better.detailed_results
    assert (
        results.val_aggregate_scores[0] == 0.0 and results.val_aggregate_scores[results.best_idx] == 1.0 and results.better_than_seed > 0.97
    )
    better.save(tmp_path / "program.json")
    again = student()
    again.load(tmp_path / "program.json")
    assert score(again) == 100.0


def test_budgets_are_those_of_dspy_gepa(toy: ToyLM) -> None:
    theirs = GEPA(metric=metric, auto="light", reflection_lm=toy).auto_budget(num_preds=1, num_candidates=6, valset_size=18)
    assert optimizer(auto="light")._budget(1, 12, 18) == theirs
    assert optimizer(max_full_evals=3)._budget(1, 12, 18) == 90


def test_nothing_better_is_the_student_again(toy: ToyLM) -> None:
    def nothing(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> float:
        return 0.0

    same = optimizer(metric=nothing, max_metric_calls=60).compile(student(), trainset=TRAIN, valset=VAL)
    assert same.detailed_results.best_idx == 0 and not same.demos
    assert same.signature.instructions == student().signature.instructions


def test_a_teacher_demonstrates(toy: ToyLM) -> None:
    teacher = dspy.Predict(dspy.Signature("question -> answer", ADVICE))
    unlabelled = [dspy.Example(question=e.question, key=e.answer).with_inputs("question") for e in TRAIN]

    def by_key(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> float:
        return float(pred.answer == (gold.key if "key" in gold else gold.answer))

    alone = optimizer(metric=by_key, operators=("demos",)).compile(student(), trainset=unlabelled, valset=VAL)
    taught = optimizer(metric=by_key, operators=("demos",)).compile(student(), trainset=unlabelled, valset=VAL, teacher=teacher)
    assert not alone.demos and score(taught) == 100.0 and all(demo.answer.startswith("WORD") for demo in taught.demos)


def test_it_works_inside_better_together(toy: ToyLM) -> None:
    program = student()
    program.set_lm(toy)
    teacher = program.deepcopy()
    together = BetterTogether(metric=exact, first=optimizer(max_metric_calls=50), second=optimizer(max_metric_calls=50, seed=1))
    better = together.compile(program, trainset=list(TRAIN), valset=VAL, strategy="first -> second", teacher=[teacher])
    assert not better.flag_compilation_error_occurred and score(better) == 100.0
    assert next(c["strategy"] for c in better.candidate_programs if c["score"] == 100.0) == "first"


def test_programs_of_several_predictors() -> None:
    class Two(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = dspy.Predict("question -> answer"), dspy.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            return self.second(question=self.first(question=question).answer)

    toy = ToyLM()
    with dspy.context(lm=toy):
        better = optimizer(reflection_lm=toy, operators=("reflect", "demos")).compile(Two(), trainset=TRAIN, valset=VAL)
        assert score(better) == 100.0
        assert {"first", "second", "demonstrations"} == set(better.detailed_results.to_dict()["candidates"][0]) | {"demonstrations"}


def test_a_model_that_is_down_has_no_score_and_ends_the_run() -> None:
    broken = ToyLM(fails_at=30)
    witness: list[Any] = []

    class Callback:
        def on_valset_evaluated(self, event: Any) -> None:
            witness.append(event)

    with dspy.context(lm=broken):
        result = optimizer(gepa_kwargs={"callbacks": [Callback()]}, max_metric_calls=80).compile(student(), trainset=TRAIN, valset=VAL)
    scored = sum(len(scores) for scores in result.detailed_results.val_subscores)
    assert scored <= 29 < result.detailed_results.total_metric_calls, "calls that reached nobody are counted, and have no score"
    with dspy.context(lm=ToyLM()), pytest.raises(Outage, match="5 proposals in a row failed"):
        optimizer(reflection_lm=ToyLM(fails_at=1), operators=("reflect",)).compile(student(), trainset=TRAIN, valset=VAL)


def test_a_program_that_raises_or_does_not_parse_scores_the_failure_score(toy: ToyLM) -> None:
    class Fragile(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict("question -> answer, confidence: float")  # the toy gives no confidence

        def forward(self, question: str) -> Any:
            if question.endswith("word1"):
                raise KeyError("no such word")
            return self.ask(question=question)

    program = Fragile()
    result = optimizer(failure_score=0.25)._adapter(program).evaluate(TRAIN[:3], {}, capture_traces=True)
    assert result.scores == [0.25, 0.25, 0.25]
    texts = [row["prediction"].completion_text for row in result.trajectories]
    assert "word0" in texts[0] and texts[1] == "KeyError: 'no such word'"
    assert optimizer()._adapter(program).make_reflective_dataset({}, result, ["ask"]) == {}
    told = optimizer(add_format_failure_as_feedback=True)._adapter(program)
    assert "failed to parse" in told.make_reflective_dataset({}, result, ["ask"])["ask"][0]["Feedback"]


def test_a_log_dir_is_gone_on_with(toy: ToyLM, tmp_path: Path) -> None:
    given = {"log_dir": str(tmp_path / "log"), "max_metric_calls": 80, "reflection_lm": toy}
    first = optimizer(**given).compile(student(), trainset=TRAIN, valset=VAL)
    calls = toy.calls
    again = optimizer(**given).compile(student(), trainset=TRAIN, valset=VAL)
    assert toy.calls == calls, "a finished run makes no call"
    assert again.dump_state() == first.dump_state()
    assert again.detailed_results.val_aggregate_scores == first.detailed_results.val_aggregate_scores


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"use_wandb": True}, "use_wandb=True is not supported"),
        ({"candidate_selection_strategy": "current_best"}, "parents are chosen by the search"),
        ({"auto": "light", "max_metric_calls": 5}, "exactly one of auto"),
        ({"auto": "huge"}, "auto='huge': it is one of light, medium, heavy"),
        ({"operators": ("reflekt",)}, "operators: 'reflekt' is not one of"),
        ({"track_stats": False, "track_best_outputs": True}, "set track_stats=True too"),
        ({"metric": lambda gold, pred: 1.0}, "metric: it must take"),
    ],
)
def test_what_is_wrong_or_not_supported_is_refused_by_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        optimizer(**given)


def test_the_call_shape_is_that_of_dspy_gepa() -> None:
    import inspect

    from gepa_atlas.bridges.dspy_optimizer import _NOT_OURS

    ours = inspect.signature(GEPAAtlas.__init__).parameters
    for name, parameter in inspect.signature(GEPA.__init__).parameters.items():
        default = _NOT_OURS[name][0] if name in _NOT_OURS else ours[name].default
        assert default == parameter.default, name
    assert list(inspect.signature(GEPAAtlas.compile).parameters) == ["self", "student", "trainset", "teacher", "valset"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'metrics'"):
        optimizer(metrics=1)
    with pytest.raises(ConfigError, match="trainset is empty"):
        optimizer().compile(student(), trainset=[])
    with pytest.raises(ConfigError, match="student: a ProgramMeta is no program"):
        optimizer().compile(type(student()), trainset=[1])


# -- agents as programs -----------------------------------------------------------------------------------------------


def agent(question: str, guidance: str, demos: list[dict[str, str]]) -> str:
    word = question.split()[-1]
    return word.upper() if "capital" in guidance.lower() or len(demos) >= 2 else word


@pytest.mark.parametrize("name", ["dspy.GEPA", "MIPROv2", "GEPAAtlas"])
def test_dspys_optimizers_improve_an_agent(name: str, toy: ToyLM, tmp_path: Path) -> None:
    program = AgentModule(agent)
    if name == "dspy.GEPA":
        search = GEPA(metric=metric, max_metric_calls=80, reflection_lm=toy, num_threads=4)
        better = search.compile(program, trainset=TRAIN, valset=VAL)
    elif name == "MIPROv2":
        search = MIPROv2(
            metric=exact, auto=None, num_candidates=3, prompt_model=toy, task_model=toy, max_bootstrapped_demos=2,
            max_labeled_demos=2, num_threads=4, verbose=False,
        )  # fmt: skip
        better = search.compile(program, trainset=TRAIN, valset=VAL, num_trials=4, minibatch=False)
    else:
        better = optimizer(max_metric_calls=80).compile(program, trainset=TRAIN, valset=VAL)
    assert (score(program), score(better)) == (0.0, 100.0)
    better.save(tmp_path / "agent.json")
    again = AgentModule(agent)
    again.load(tmp_path / "agent.json")
    assert score(again) == 100.0


def test_an_agent_gets_inputs_context_and_guidance() -> None:
    seen: list[Any] = []

    def echo(question: str, context: str, guidance: str, demos: list[Any]) -> str:
        seen.append((question, context, guidance, demos))
        return f"{question}!"

    program = AgentModule(echo, "context, question -> reply")
    assert program(question="{q} 'x' \"y\"", context="from here").reply == "{q} 'x' \"y\"!"
    assert seen == [("{q} 'x' \"y\"", "from here", "", [])], "without instructions the agent is as it is"
    program(question="{q} 'x' \"y\"", context="from here")
    assert len(seen) == 1, "the same request is answered from memory"
    program.agent.demos = [dspy.Example(question="a", context="b", reply="c")]
    guided = AgentModule(echo, "question -> reply", instructions="Be brief.")
    assert asyncio.run(program.acall(question="x", context="y")).reply == asyncio.run(guided.acall(question="x")).reply == "x!"
    assert seen[1:] == [("x", "y", "", [{"question": "a", "answer": "c", "context": "b"}]), ("x", "", "Be brief.", [])]
    many = AgentModule(echo, "city, day -> weather")
    assert many(city="Oslo", day="Monday").weather == "city: Oslo\nday: Monday!"
    with pytest.raises(ConfigError, match="called without day"):
        many(city="Oslo")
    with pytest.raises(ConfigError, match="one output field, not 2"):
        AgentModule(echo, "question -> a, b")


def test_an_agent_that_fails_is_a_typed_error_and_has_no_score() -> None:
    def broken(question: str, guidance: str) -> str:
        raise OSError("out of order")

    program = AgentModule(broken, retry={"attempts": 1})
    with pytest.raises(AgentCrashed, match="out of order"):
        program(question="x")
    with pytest.raises(Outage, match=r"none of the seed's \d+ validation examples has a score: AgentCrashed"):
        optimizer().compile(program, trainset=TRAIN, valset=VAL)


# -- on the embedded model --------------------------------------------------------------------------------------------

PARCELS = [
    dspy.Example(question=f"{what} {a}{b}-{n}{ending}", answer=f"{a}{b}-{n}").with_inputs("question")
    for (what, ending), (a, b), n in zip(
        [("Where is order", "?"), ("Please cancel", "."), ("My parcel", " is late."), ("I never got", "!")] * 6,
        [("V", "T"), ("Q", "X"), ("H", "B"), ("Z", "K"), ("M", "R"), ("P", "L")] * 4,
        range(41007, 99999, 1733),
        strict=False,
    )
]


@pytest.mark.local
@pytest.mark.slow
def test_the_tutorial_on_the_embedded_model(local_model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dspy.GEPA's tutorial shape with our optimizer in its place; the saved program scores the same in plain DSPy."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else dspy looks for prices on the network

    def ours(lm: Any) -> Any:
        return GEPAAtlas(metric=dspy_tutorial.metric, max_metric_calls=15, reflection_lm=lm, num_threads=2, operators=("demos",))

    with serving(local_model) as url:
        scores = dspy_tutorial.tutorial(url, ours, PARCELS[:8], PARCELS[8:13], PARCELS[13:17], tmp_path)
    assert scores["before"] < scores["after"] == scores["loaded"]
