"""gepa.optimize with our search behind it: adapters, stoppers, callbacks and results are gepa's; limits are hard, failures are named."""

from __future__ import annotations

import random
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from gepa import EvaluationBatch, GEPAResult
from gepa.utils import FileStopper, MaxCandidateProposalsStopper, NoImprovementStopper, ScoreThresholdStopper, TimeoutStopCondition

from gepa_atlas.compat import gepa
from gepa_atlas.errors import ConfigError, MissingExtra, Outage, RunChanged

RULES = ("capitals", "brief", "polite", "digits", "french")


class Shop:
    """A GEPAAdapter whose prompt needs a rule for even and another for odd questions."""

    propose_new_texts = None

    def __init__(self, best: float = 1.0, worst: float = 0.0) -> None:
        self.best, self.worst = best, worst
        self.calls: Counter[tuple[str, Any]] = Counter()
        self.fail_at: int | None = None

    def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        if self.fail_at is not None and sum(self.calls.values()) >= self.fail_at:
            raise ConnectionError("the shop is closed")
        have = set(" ".join(candidate.values()).split())
        self.calls.update((" ".join(candidate.values()), x) for x in batch)
        right = [("capitals" if x % 2 else "digits") in have for x in batch]
        scores = [self.best if r else self.worst for r in right]
        traces = [{"x": x, "right": r} for x, r in zip(batch, right, strict=True)]
        return EvaluationBatch(
            outputs=[f"out {x}" for x in batch],
            scores=scores,
            trajectories=traces if capture_traces else None,
            objective_scores=[{"right": float(r)} for r in right],
        )

    def make_reflective_dataset(self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]) -> Any:
        rows = [{"Inputs": t["x"], "Feedback": "good" if t["right"] else "a rule is missing"} for t in eval_batch.trajectories]
        return dict.fromkeys(components_to_update, rows)


class Model:
    """A reflection model: a seeded draw of two rules."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.prompts: list[Any] = []

    def __call__(self, prompt: Any) -> str:
        self.prompts.append(prompt)
        return f"```\n{self.random.choice(RULES)} {self.random.choice(RULES)}\n```"


class Witness:
    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda event: self.events.append((name, event))

    def of(self, name: str) -> list[Any]:
        return [event for seen, event in self.events if seen == name]


def search(adapter: Shop | None = None, **given: Any) -> Any:
    options: dict[str, Any] = {
        "seed_candidate": {"system": "x"},
        "trainset": list(range(20)),
        "valset": list(range(20, 40)),
        "reflection_lm": Model(),
        "max_metric_calls": 150,
        "logger": Quiet(),
    }
    return gepa.optimize(adapter=adapter or Shop(), **{**options, **given})


class Quiet:
    def log(self, message: str) -> None:
        pass


def test_it_finds_the_rules_within_the_limit_and_answers_a_gepa_result() -> None:
    shop = Shop()
    result = search(shop)
    assert isinstance(result, GEPAResult)
    assert set(result.best_candidate["system"].split()) == {"capitals", "digits"}
    assert result.val_aggregate_scores[result.best_idx] == 1.0 and result.better_than_seed > 0.97
    assert sum(shop.calls.values()) == result.total_metric_calls <= 150
    assert max(shop.calls.values()) == 1, "nothing twice"
    assert result.parents[0] == [None] and all(p[0] < i for i, p in enumerate(result.parents) if i)
    assert result.val_aggregate_subscores[result.best_idx] == {"right": 1.0}
    assert result.to_dict()["best_idx"] == result.best_idx and "digraph" in result.candidate_tree_dot()
    assert {(i, o) for outs in result.best_outputs_valset.values() for i, o in outs if i == result.best_idx}


def test_the_same_seed_is_the_same_run() -> None:
    one, two, other = search(seed=4), search(seed=4), search(seed=5)
    assert one.to_dict() == two.to_dict() != other.to_dict()


@pytest.mark.parametrize("limit", [2, 3, 7, 20, 33])
def test_the_limit_is_hard(limit: int) -> None:
    shop = Shop()
    assert search(shop, max_metric_calls=limit).total_metric_calls == sum(shop.calls.values()) <= limit


@pytest.mark.parametrize("seed", range(4))
def test_one_set_serves_both_sides_and_its_rollouts_are_paid_once(seed: int) -> None:
    shop = Shop()
    result = search(shop, valset=None, max_metric_calls=100, seed=seed)
    assert set(result.best_candidate["system"].split()) == {"capitals", "digits"}
    assert max(shop.calls.values()) == 1
    assert all(len(scores) for scores in result.val_subscores)


@pytest.mark.parametrize(("best", "worst"), [(100.0, 0.0), (-1.0, -350.0), (7.0, 3.0)])
def test_scores_need_not_lie_between_0_and_1(best: float, worst: float) -> None:
    result = search(Shop(best, worst), perfect_score=best)
    assert result.val_aggregate_scores[result.best_idx] == best
    assert set(result.best_candidate["system"].split()) == {"capitals", "digits"}


def test_stoppers_of_gepa_stop_it(tmp_path: Path) -> None:
    free = {"max_metric_calls": None}
    assert max(search(**free, stop_callbacks=ScoreThresholdStopper(0.4)).val_aggregate_scores) >= 0.4
    witness = Witness()
    search(**free, stop_callbacks=[MaxCandidateProposalsStopper(5)], callbacks=[witness])
    assert len(witness.of("on_iteration_start")) == 5
    assert search(**free, stop_callbacks=NoImprovementStopper(3)).total_metric_calls < 100
    (tmp_path / "stop").touch()
    assert len(search(**free, stop_callbacks=[FileStopper(str(tmp_path / "stop")), TimeoutStopCondition(60)]).candidates) == 1
    assert gepa.StopperProtocol is type(FileStopper("x")).__mro__[1], "every other name of the door is gepa's own"


def test_callbacks_see_a_run_that_adds_up() -> None:
    witness = Witness()
    result = search(callbacks=[witness])
    assert witness.events[0][0] == "on_optimization_start" and witness.events[-1][0] == "on_optimization_end"
    assert witness.of("on_optimization_end")[0]["best_candidate_idx"] == result.best_idx
    accepted, rejected = witness.of("on_candidate_accepted"), witness.of("on_candidate_rejected")
    starts, ends = witness.of("on_iteration_start"), witness.of("on_iteration_end")
    assert len(starts) == len(ends) == len(accepted) + len(rejected)
    assert [e["new_candidate_idx"] for e in accepted] == list(range(1, len(result.candidates)))
    assert sum(e["proposal_accepted"] for e in ends) == len(accepted)
    assert witness.of("on_budget_updated")[-1]["metric_calls_used"] == result.total_metric_calls
    assert len(witness.of("on_evaluation_start")) == len(witness.of("on_evaluation_end"))
    assert all(len(e["inputs"]) == e["batch_size"] for e in witness.of("on_evaluation_start"))
    built = witness.of("on_reflective_dataset_built")
    assert built and len(built) == len(witness.of("on_proposal_start")) >= len(witness.of("on_proposal_end"))
    state = witness.of("on_optimization_end")[0]["final_state"]
    assert state.is_consistent() and state.total_num_evals == result.total_metric_calls


def test_components_take_turns_or_go_together_or_are_chosen() -> None:
    two = {"seed_candidate": {"one": "x", "two": "y"}, "max_metric_calls": 60}
    turns, together, mine = Witness(), Witness(), Witness()
    search(**two, callbacks=[turns])
    search(**two, callbacks=[together], module_selector="all")
    search(**two, callbacks=[mine], module_selector=lambda state, traces, scores, index, candidate: ["two"])
    assert {tuple(e["components"]) for e in turns.of("on_proposal_start")} == {("one",), ("two",)}
    assert {tuple(e["components"]) for e in together.of("on_proposal_start")} == {("one", "two")}
    assert {tuple(e["components"]) for e in mine.of("on_proposal_start")} == {("two",)}


def test_merging_joins_what_two_candidates_found() -> None:
    """Merges of which all pay (5), of which none does (17), and a search that is over before there is one (1)."""
    three = {"one": "x", "two": "y", "three": "z"}
    for seed, pays in ((5, True), (17, False), (1, False)):
        witness = Witness()
        result = search(seed_candidate=three, use_merge=True, max_merge_invocations=3, callbacks=[witness], max_metric_calls=300, seed=seed)
        tried, kept = witness.of("on_merge_attempted"), witness.of("on_merge_accepted")
        assert bool(kept) is pays
        assert len(tried) <= 3 and len(kept) + len(witness.of("on_merge_rejected")) == len(tried)
        assert all(len(result.parents[event["new_candidate_idx"]]) == 2 for event in kept)
        for event in tried:
            mine, theirs = (result.candidates[i] for i in event["parent_ids"])
            assert all(event["merged_candidate"][name] in (mine[name], theirs[name]) for name in three)


def test_a_run_dir_is_gone_on_with_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    whole = search(Shop(), max_metric_calls=120)
    shop = Shop()
    shop.fail_at = 40
    with pytest.raises(ConnectionError):
        search(shop, max_metric_calls=120, run_dir=str(tmp_path / "run"))
    paid = sum(shop.calls.values())
    shop.fail_at = None
    model, witness = Model(), Witness()
    result = search(shop, max_metric_calls=120, run_dir=str(tmp_path / "run"), reflection_lm=model, callbacks=[witness])
    assert max(shop.calls.values()) == 1, "nothing twice"
    assert result.total_metric_calls == sum(shop.calls.values()) > paid
    assert result.candidates[1] == whole.candidates[1], "what was found before the crash is found again"
    assert witness.of("on_state_saved")[-1]["run_dir"] == str(tmp_path / "run")
    before = sum(shop.calls.values())
    assert search(shop, max_metric_calls=120, run_dir=str(tmp_path / "run")).to_dict()["candidates"] == result.candidates
    assert sum(shop.calls.values()) == before, "a finished run makes no call"
    with pytest.raises(RunChanged, match="other values of: valset"):
        search(shop, max_metric_calls=120, run_dir=str(tmp_path / "run"), valset=list(range(21, 41)))


def test_failures_are_named_never_scored() -> None:
    shop = Shop()
    shop.fail_at = 30
    with pytest.raises(ConnectionError):
        search(shop)
    witness = Witness()
    shop.calls.clear()
    result = search(shop, raise_on_exception=False, callbacks=[witness], max_metric_calls=60)
    assert result.total_metric_calls <= 60 and witness.of("on_error")
    scored = sum(len(scores) for scores in result.val_subscores)
    assert scored < result.total_metric_calls - 10, "what failed has no score"

    shop.fail_at = 0
    with pytest.raises(Outage, match=r"none of the seed's \d+ validation examples has a score: ConnectionError"):
        search(shop, raise_on_exception=False)

    def broken(prompt: Any) -> str:
        raise TimeoutError("no model")

    with pytest.raises(Outage, match="5 proposals in a row failed"):
        search(reflection_lm=broken)


def test_an_adapter_that_returns_nothing_is_told_so() -> None:
    class Forgetful(Shop):
        def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
            super().evaluate(batch, candidate, capture_traces)

    with pytest.raises(ValueError, match=r"Forgetful\.evaluate returned nothing"):
        search(Forgetful())


class Noisy(Shop):
    """Right at random, so that a second look says something else."""

    def __init__(self) -> None:
        super().__init__()
        self.random = random.Random(7)

    def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        result = super().evaluate(batch, candidate, capture_traces)
        result.scores = [float(self.random.random() < 0.4) for _ in batch]
        return result


def test_noisy_examples_are_looked_at_again_unless_the_cache_is_asked_for() -> None:
    again, once = Noisy(), Noisy()
    few = {"valset": list(range(20, 26)), "max_metric_calls": 200}
    search(again, **few)
    search(once, **few, cache_evaluation=True)
    assert max(again.calls.values()) > 1 == max(once.calls.values())


def test_perfect_lessons_are_skipped_or_read() -> None:
    skipping, reading = Model(), Model()
    rights = {"seed_candidate": {"system": "capitals digits"}, "max_metric_calls": 60}
    witness = Witness()
    search(**rights, reflection_lm=skipping, callbacks=[witness])
    search(**rights, reflection_lm=reading, skip_perfect_score=False)
    assert not skipping.prompts and reading.prompts
    assert {event["reason"] for event in witness.of("on_evaluation_skipped")} & {"all_scores_perfect"}


def test_so_many_examples_are_reflected_on_as_was_said() -> None:
    witness = Witness()
    search(reflection_minibatch_size=5, callbacks=[witness])
    sizes = {len(event["minibatch_ids"]) for event in witness.of("on_minibatch_sampled")}
    assert sizes and max(sizes) == 5


class Kept:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)


def test_what_holds_for_many_iterations_is_logged_once() -> None:
    kept = Kept()
    search(seed_candidate={"system": "capitals digits"}, logger=kept)
    assert sum("nothing to reflect on: all_scores_perfect" in line for line in kept.lines) == 1


def test_an_exception_that_cannot_say_what_it_is() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    class Broken(Shop):
        def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
            raise Mute

    with pytest.raises(Outage, match=r"none of the seed's \d+ validation examples has a score: Mute: \(no message"):
        search(Broken(), raise_on_exception=False)


def test_money_for_reflection_is_limited() -> None:
    class Priced(Model):
        total_cost = 0.0

        def __call__(self, prompt: Any) -> str:
            self.total_cost += 0.25
            return super().__call__(prompt)

    model = Priced()
    search(reflection_lm=model, max_reflection_cost=0.5, max_metric_calls=None)
    assert model.total_cost == 0.5


def test_progress_and_log_are_written_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    search(display_progress_bar=True, max_metric_calls=30)
    assert "gepa_atlas: 30/30 rollouts" in capsys.readouterr().err
    search(logger=None, max_metric_calls=30)
    assert capsys.readouterr().out.startswith("seed: mean score 0.0000 on 6 of 20 validation examples")
    assert search(track_best_outputs=False, max_metric_calls=30).best_outputs_valset is None


def test_a_missing_package_is_an_error_that_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'gepa-atlas\[gepa\]'"):
        gepa.GEPAResult  # noqa: B018
    with pytest.raises(MissingExtra, match=r"pip install 'gepa-atlas\[dspy\]'"):
        import_module("gepa_atlas.dspy").GEPAAtlas  # noqa: B018


def test_gepas_default_adapter_runs() -> None:
    data = [{"input": f"q{n}", "answer": f"a{n}", "additional_context": {}} for n in range(8)]
    result = gepa.optimize(
        seed_candidate={"system": "hm"},
        trainset=data,
        task_lm=lambda messages: messages[1]["content"].replace("q", "a") if "swap" in messages[0]["content"] else "no",
        reflection_lm=lambda prompt: "```\nswap the letters\n```",
        max_metric_calls=40,
        logger=Quiet(),
    )
    assert result.best_candidate == {"system": "swap the letters"} and result.val_aggregate_scores[result.best_idx] == 1.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"candidate_selection_strategy": "current_best"},
            "candidate_selection_strategy='current_best' is not supported: parents",
        ),
        ({"acceptance_criterion": "improvement_or_equal"}, "acceptance_criterion='improvement_or_equal' is not supported"),
        ({"use_wandb": True}, "use_wandb=True is not supported: give a callback"),
        ({"use_cloudpickle": True}, "nothing is pickled"),
        ({"max_metric_calls": None}, "the run would never end"),
        ({"max_metric_calls": 1}, "give 2 or more"),
        ({"trainset": []}, "trainset is empty"),
        ({"seed_candidate": "Answer."}, "seed_candidate='Answer.': it is a mapping"),
        ({"reflection_lm": None}, "reflection_lm: give a model"),
        ({"task_lm": print}, "task_lm is for gepa's default adapter"),
        ({"perfect_score": None}, "skip_perfect_score=True compares with it"),
        ({"max_merge_invocations": 3}, "it is for use_merge=True"),
        ({"module_selector": "best"}, "module_selector='best': it is one of round_robin, all"),
        ({"reflection_lm_kwargs": {"t": 1}}, "reflection_lm_kwargs is for"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        search(**given)
    assert says in str(refused.value) and isinstance(refused.value, ValueError)


def test_every_option_of_gepa_is_known_and_no_other() -> None:
    import inspect

    from gepa.api import optimize as theirs

    from gepa_atlas.bridges.gepa import _OURS_DECIDES, optimize

    ours = inspect.signature(optimize).parameters
    missing = set(inspect.signature(theirs).parameters) - set(ours) - set(_OURS_DECIDES)
    assert not missing
    for name, parameter in inspect.signature(theirs).parameters.items():
        ours_default = _OURS_DECIDES[name][0] if name in _OURS_DECIDES else ours[name].default
        assert ours_default == parameter.default, name
    with pytest.raises(TypeError, match="unexpected keyword argument 'sed'"):
        search(sed=1)
    with pytest.raises(AttributeError, match="nor has gepa"):
        gepa.no_such_thing  # noqa: B018
