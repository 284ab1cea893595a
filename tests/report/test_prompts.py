"""optimized_prompts.json: the six keys are filled whatever happened, and every document obeys the published schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.errors import ConfigError, ContractError
from gepa_atlas.report.prompts import ATLAS_KEYS, optimized_prompts, write_optimized_prompts
from gepa_atlas.report.record import Member
from gepa_atlas.types import Ruling, Scorecard, Verdict
from tests.report.records import ALL, CHILD, NO_TEST, SEED, SEED_WON, SHIP, UNSURE, WINNER, WORSE, card, record

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "optimized_prompts.schema.json").read_text())


def check(document: dict[str, Any]) -> None:
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    jsonschema.Draft202012Validator(SCHEMA).validate(again)
    assert all(document[key] is not None for key in ATLAS_KEYS)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("verdict", ALL.values(), ids=ALL.keys())
def test_every_ruling_fills_the_six_keys_and_obeys_the_schema(verdict: Verdict) -> None:
    check(optimized_prompts(record(verdict)))


def test_a_shipped_winner_is_the_best_candidate_with_its_test_score() -> None:
    made = optimized_prompts(record(SHIP))
    assert made["best_candidate"] == {"guidance": WINNER.text("guidance")}
    assert made["demonstrations"] == [{"example_id": "toy-0001", "question": "Ticket 1?", "answer": "mumeb"}]
    assert (made["best_score"], made["initial_score"], made["score_split"]) == (0.9, 0.1, "test")
    assert made["improvement"] == 0.8
    assert (made["improvement_percentage"], made["improvement_percentage_of"]) == (800.0, "initial_score")
    assert made["test"]["gain"] == {"mean": 0.8, "low": 0.65, "high": 0.89, "level": 0.95, "pairs": 39, "judge_error": None}
    assert (made["coverage"], made["harm_rate"]) == (39 / 40, 0.025)
    assert [a["id"] for a in made["lineage"]] == [WINNER.id, CHILD.id, SEED.id]
    assert [a["origin"] for a in made["lineage"]] == ["demos", "edit", "seed"]


@pytest.mark.parametrize("verdict", [WORSE, UNSURE])
def test_what_does_not_ship_returns_the_seed_and_still_shows_the_challenger(verdict: Verdict) -> None:
    made = optimized_prompts(record(verdict))
    assert made["best_candidate"] == {"guidance": SEED.text("guidance")}
    assert made["best_score"] == made["initial_score"] == 0.1
    assert made["improvement"] == made["improvement_percentage"] == 0.0
    assert made["challenger"]["candidate"] == {"guidance": WINNER.text("guidance")}
    assert made["test"]["gain"]["mean"] == verdict.gain
    assert [a["id"] for a in made["lineage"]] == [SEED.id]


def test_a_seed_that_scores_zero_gives_the_improvement_in_points() -> None:
    made = optimized_prompts(record(replace(SHIP, seed=card(SEED, 0.0), winner=card(WINNER, 0.95), gain=0.95)))
    assert (made["improvement_percentage"], made["improvement_percentage_of"]) == (95.0, "points")
    check(made)


def test_without_a_test_split_the_val_scores_are_given_and_called_so() -> None:
    made = optimized_prompts(record(NO_TEST, splits={"train": 5, "val": 5}))
    assert (made["best_score"], made["score_split"]) == (0.12, "val")
    assert made["test"]["gain"]["mean"] is None
    assert made["splits"] == {"train": 5, "val": 5, "test": 0}


def test_with_nothing_scored_the_scores_are_null_and_never_zero() -> None:
    population = tuple(Member(c, card(c, None)) for c in (SEED, CHILD, WINNER))
    made = optimized_prompts(record(NO_TEST, population=population, frontier=()))
    assert (made["best_score"], made["initial_score"], made["score_split"]) == (None, None, "none")
    assert made["improvement"] == 0.0
    assert [m["id"] for m in made["pareto_frontier"]] == [SEED.id]
    jsonschema.Draft202012Validator(SCHEMA).validate(made)


def test_a_seed_that_won_is_its_own_best() -> None:
    made = optimized_prompts(record(SEED_WON, challenger=SEED))
    assert made["best_candidate_id"] == SEED.id
    assert made["improvement"] == 0.0
    check(made)


def test_the_front_is_sorted_by_score() -> None:
    front = optimized_prompts(record())["pareto_frontier"]
    assert [m["id"] for m in front] == [WINNER.id, CHILD.id]
    assert [m["is_best"] for m in front] == [True, False]


def test_merges_have_a_lineage_with_every_ancestor_once() -> None:
    merged = WINNER.child("merge", texts={"guidance": "both"}, also=(CHILD.id,))
    full = record()
    made = optimized_prompts(record(challenger=merged, population=(*full.population, Member(merged, card(merged, 0.97)))))
    assert [a["id"] for a in made["lineage"]] == [merged.id, WINNER.id, CHILD.id, SEED.id]


def test_a_record_knows_its_own() -> None:
    with pytest.raises(ContractError, match=r"the challenger .* is not in the population"):
        record(population=record().population[:2], frontier=())


@given(
    seed=st.none() | st.floats(0, 1),
    winner=st.none() | st.floats(0, 1),
    ruling=st.sampled_from(list(Ruling)),
    scored=st.integers(0, 40),
)
def test_any_scores_make_a_valid_document(seed: float | None, winner: float | None, ruling: Ruling, scored: int) -> None:
    def some(after: float | None, who: str) -> Scorecard:
        delta = None if after is None else after - 0.5
        return Scorecard(who, 40, scored if after is not None else 0, delta, delta, delta, after, 0.5 if after is not None else None, 0.0)

    gain = None if seed is None or winner is None else winner - seed
    verdict = Verdict(ruling, ("because",), some(seed, SEED.id), some(winner, WINNER.id), gain, gain, gain, scored)
    document = optimized_prompts(record(verdict))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    if document["best_score"] is not None:
        assert document["improvement"] == pytest.approx(document["best_score"] - document["initial_score"], abs=2e-6)


def test_it_is_written_whole_and_without_secrets(tmp_path: Path) -> None:
    key = "sk-" + "a" * 24
    path = tmp_path / "optimized_prompts.json"
    write_optimized_prompts(record(notes=(f"the key was {key}",)), path)
    text = path.read_text()
    assert key not in text and "🎓" in text
    check(json.loads(text))
    with pytest.raises(ConfigError, match="cannot be written"):
        write_optimized_prompts(record(), tmp_path / "absent" / "x.json")
