"""Worlds are what they claim: text in and out, analytic truth, noise by address, a counting door, and no way around it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.optimizers import get
from benchmarks.optimizers.base import fenced, step_feedback
from benchmarks.server import BudgetExhausted, EvalServer
from benchmarks.simland import run as simland_run
from benchmarks.simland.__main__ import main
from benchmarks.simland.families import FAMILIES, NOISES
from benchmarks.simland.landscape import SimLandscape
from benchmarks.simland.reading import read
from benchmarks.simland.reflector import Reflector
from benchmarks.simland.rows import rows
from benchmarks.simland.world import World

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world() -> World:
    return World("easy", "light", "tests", 1)


def full(world: World) -> dict[str, str]:
    """Every rule in the best paraphrase, in its module."""
    items = [i for i in world.grammar.items if i.kind == "rule" and not i.scope]
    return {
        name: "\n".join([world.intro, *(f"- {world.grammar.write(i.index, world.best_template)}" for i in items if i.module == m)])
        for m, name in enumerate(world.components)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_headroom_it_claims(family: str) -> None:
    for noise in NOISES:
        world = World(family, noise, "tests", 0)
        if family == "flat":
            assert world.best_truth - world.seed_truth < 0.02
        else:
            assert world.best_truth - world.seed_truth >= 0.2
        assert world.normalised(world.seed_truth) == 0.0


def test_a_world_is_a_function_of_its_address() -> None:
    one, same, other = World("sparse", "medium", "a", 1), World("sparse", "medium", "a", 1), World("sparse", "medium", "a", 2)
    assert one.seed_candidate == same.seed_candidate and one.best_truth == same.best_truth
    assert one.seed_candidate != other.seed_candidate


def test_truth_is_the_mean_of_many_rollouts(world: World) -> None:
    """Rollouts on train and val agree with the analytic expectation within four standard errors."""
    rows_ = np.arange(world.n_train + world.n_val).repeat(60)
    calls = np.tile(np.arange(60), world.n_train + world.n_val)
    scores, success = world.run(world.seed_candidate, rows_, calls)
    expected = world._success(world.margins(world.seed_candidate)).mean()
    assert (scores == success).all()
    assert abs(scores.mean() - expected) < 4 * 0.5 / np.sqrt(len(scores))


def test_without_noise_a_repeat_gives_the_same_score_and_with_noise_it_need_not(world: World) -> None:
    quiet = World("easy", "none", "tests", 1)
    for w, equal in ((quiet, True), (world, False)):
        server = EvalServer(SimLandscape(w), 2000)
        draws = [[r.score for r in server.evaluate(w.seed_candidate, server.val_ids)] for _ in range(4)]
        assert (len({tuple(d) for d in draws}) == 1) is equal
        assert server.ledger.repeats == 3 * len(server.val_ids)


def test_all_rules_beat_the_seed_and_lists_numbers_and_json_are_read_alike(world: World) -> None:
    text = full(world)["instructions"]
    assert world.truth({"instructions": text}) > world.seed_truth + 0.1
    lines = text.splitlines()
    for other in (
        "\n".join(f"{i}. {line.lstrip('- ')}" for i, line in enumerate(lines, 1)),
        "\n".join(f"* {line.lstrip('- ')}" for line in lines),
        " ".join(line.lstrip("- ") for line in lines),
    ):
        assert [s.item for s in world.grammar.read(other)] == [s.item for s in world.grammar.read(text)]
        assert [s.fidelity for s in world.grammar.read(other)] == [s.fidelity for s in world.grammar.read(text)]


def test_paraphrases_differ_and_unknown_wording_counts_for_a_third(world: World) -> None:
    item = world.grammar.items[0]
    said = {world.grammar.read(world.grammar.write(0, t))[0].fidelity for t in range(5)}
    assert said == {1.0, 0.9, 0.75, 0.55, 0.35}
    assert world.grammar.read(f"Whatever about {item.condition} and {item.action} too.")[0].fidelity == 0.33
    assert world.grammar.read("Nothing of the sort.") == ()


def test_a_trace_names_the_condition_and_never_the_action(world: World) -> None:
    server = EvalServer(SimLandscape(world), 5000)
    texts = [r.feedback for r in server.evaluate(world.seed_candidate, server.train_ids * 5)]
    missing = [t for t in texts if world.grammar.symptoms(t) and world.grammar.symptoms(t)[0][0] == "missing"]
    assert missing
    actions = {i.action for i in world.grammar.items}
    assert not any(word.strip(".") in actions for t in missing for word in t.split())
    assert max(len(world.grammar.symptoms(t)) for t in texts) == 1


def test_the_budget_is_a_wall_and_a_cached_repeat_still_counts(world: World) -> None:
    server = EvalServer(SimLandscape(world), 50)
    ids = server.val_ids[:20]
    server.evaluate(world.seed_candidate, ids)
    server.evaluate(world.seed_candidate, ids)
    with pytest.raises(BudgetExhausted, match="50 student calls"):
        server.evaluate(world.seed_candidate, ids)
    assert (server.ledger.student_calls, server.ledger.refused, server.left) == (50, 10, 0)


def test_checkpoints_hold_the_current_best(world: World) -> None:
    server = EvalServer(SimLandscape(world), 40, checkpoints=4)
    now = {"instructions": "first"}
    server.watch(lambda: now)
    server.evaluate(world.seed_candidate, server.val_ids[:15])
    now = {"instructions": "second"}
    server.evaluate(world.seed_candidate, server.val_ids[:10])
    ledger = server.close({"instructions": "last"})
    assert [(mark, texts["instructions"]) for mark, texts in ledger.best] == [(10, "first"), (20, "second"), (30, "last"), (40, "last")]


# -- the reflector ----------------------------------------------------------------------------------------------------


def prompt_of(world: World, current: str, symptoms: int, extra: str = "") -> str:
    absent = [i.condition for i in world.grammar.items[: world.n_rules] if i.condition not in current]
    lines = [world.grammar.missing(absent[0], 0.0, 0)] * symptoms if symptoms else []
    return f"Current instruction:\n```\n{current}\n```\n# Feedback\n" + "\n".join(lines) + f"\n{extra}\nWrite it anew."


def test_the_reflector_is_a_function_of_prompt_and_repeat(world: World) -> None:
    reflector, asked = Reflector(world), prompt_of(world, world.seed_candidate["instructions"], 2)
    assert reflector(asked, 0) == reflector(asked, 0)
    assert len({reflector(asked, n) for n in range(12)}) > 1


def test_more_symptoms_of_a_rule_bring_it_oftener(world: World) -> None:
    reflector, current = Reflector(world), world.intro
    rates = []
    for count in (1, 4):
        wanted = next(i for i in world.grammar.items[: world.n_rules] if i.condition not in current)
        answers = [world.grammar.read(fenced(reflector(prompt_of(world, current, count), n))) for n in range(200)]
        rates.append(np.mean([any(s.item == wanted.index for s in a) for a in answers]))
    assert rates[0] == 0.0 or rates[1] > rates[0]  # a blind spot stays blind


def test_whole_rewrites_forget_and_item_edits_do_not() -> None:
    world = World("sparse", "light", "tests", 3)
    current = full(world)["instructions"]
    numbered = {str(i): line for i, line in enumerate(current.splitlines(), 1)}
    edits = json.dumps({"instructions": [{"component": "instructions", "items": numbered}]}, indent=1)
    reflector, have = Reflector(world), {s.item for s in world.grammar.read(current)}
    lost = [len(have - {s.item for s in world.grammar.read(fenced(reflector(prompt_of(world, current + " ", 0), n)))}) for n in range(40)]
    assert np.mean(lost) > 0.5
    answer = json.loads(reflector(f'{edits}\nAnswer with edits: "component", "op", "item", "text"; at most 2 edits.', 0))
    assert len(answer["edits"]) <= 2
    assert all(e["op"] != "drop" for e in answer["edits"])


def test_rejected_attempts_are_not_taken_for_the_current_text(world: World) -> None:
    a, b, c = (world.grammar.write(i, 0) for i in (0, 1, 2))
    data = {
        "instructions": [{"component": "instructions", "items": {"1": a}}],
        "tried_before_and_rejected": [{"instructions": {"added": [b], "dropped": [a]}}],
        "how_other_good_versions_differ": [{"instructions": {"added": [c], "dropped": []}}],
    }
    found = read(f'{json.dumps(data, indent=1)}\n"op"', world.grammar, world.components)
    assert [(p.sentence.item, p.component, p.number) for p in found.rules] == [(0, "instructions", 1)]
    assert found.tried == {1} and found.tried_drop == {0} and [s.item for s in found.others] == [2]
    plain = read(f"```\n- {a}\n```\n# Already tried and rejected\n- {b}\n# Feedback\nNone.", world.grammar, world.components)
    assert [p.sentence.item for p in plain.rules] == [0] and plain.tried == {1}


def test_too_many_symptoms_are_not_all_read(world: World) -> None:
    conditions = [i.condition for i in world.grammar.items if i.kind == "rule"]
    asked = "```\nnothing\n```\n" + "\n".join(world.grammar.missing(c, 0.0, 0) for c in conditions * 20)
    added = [len(world.grammar.read(fenced(Reflector(world)(asked, n)))) for n in range(30)]
    assert max(added) <= world.constants.whole("attention") + 2


def test_feedback_of_other_components_is_left_out() -> None:
    text = "[router] The reply did not deal with the vorn. The reply was not accepted."
    assert "vorn" in step_feedback(text, "router", ("router", "solver"))
    assert "vorn" not in step_feedback(text, "solver", ("router", "solver"))


# -- optimizers and tables --------------------------------------------------------------------------------------------


def test_no_optimizer_imports_a_world() -> None:
    """Neither the adapters nor the package may see behind the server."""
    hidden = ("benchmarks.simland", "benchmarks.smol")
    for file in [*ROOT.glob("benchmarks/optimizers/*.py"), *ROOT.glob("gepa_atlas/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(name.startswith(hidden) for name in names), f"{file.name} imports {names}"


@pytest.mark.parametrize(
    "name", ["atlas", "gepa", "gepa_tuned", "gepa:parents=2+mutations=2", "best_of_n", "random", "greedy", "delta", "null"]
)
@pytest.mark.parametrize("family", ["easy", "modules"])
def test_every_optimizer_stays_in_budget_and_ships_readable_texts(name: str, family: str) -> None:
    world = World(family, "light", "tests", 5)
    server = EvalServer(SimLandscape(world), 400)
    final = get(name)(server, 0)
    assert set(final) == set(world.components)
    assert server.ledger.student_calls <= 400
    assert -1.0 <= world.normalised(world.truth(final)) <= 1.2


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match="no optimizer 'gpea'"):
        get("gpea")


def test_rows_pair_worlds_and_gepa_stands_for_its_better_configuration() -> None:
    names = ("gepa", "gepa_tuned", "null")
    work = simland_run.jobs(["easy", "flat"], ["none", "light"], 4, "tests", names, 200, 1)
    runs = [r for job in work for r in simland_run.play(job)]
    made = rows(runs, names, ["easy", "flat"], ["none", "light"], 200)
    cell = {(r["family"], r["noise"], r["optimizer"]): r for r in made}
    top = max(cell["all", "mixed", n]["true_gain"] for n in ("gepa", "gepa_tuned"))
    better = cell["all", "mixed", "null"]["gepa_configuration"]
    assert cell["all", "mixed", better]["true_gain"] == top
    assert cell["all", "mixed", better]["ratio_to_gepa"] == 1.0
    assert cell["all", "mixed", "null"]["true_gain"] == 0.0 and cell["flat", "mixed", "null"]["hurt_rate"] == 0.0
    assert cell["all", "mixed", "gepa"]["worlds"] == 4 and cell["deterministic", "none", "gepa"]["worlds"] == 2


def test_the_command_writes_the_fields_and_another_key_draws_other_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for key in ("one", "two"):
        out = tmp_path / f"{key}.json"
        arguments = ["--worlds", "2", "--budget", "120", "--optimizers", "gepa,random", "--families", "easy", "--noise", "light"]
        assert main([*arguments, "--key", key, "--jobs", "1", "--json", str(out)]) == 0
        made.append(json.loads(out.read_text()))
    wanted = {
        "optimizer", "family", "noise", "budget", "worlds", "true_gain", "true_gain_low", "true_gain_high", "ratio_to_gepa", "ratio_low",
        "ratio_high", "hurt_rate", "rollouts_to_gepa_gain", "prompt_tokens",
    }  # fmt: skip
    assert all(wanted <= row.keys() for row in made[0]["rows"])
    assert {r["optimizer"] for r in made[0]["rows"]} == {"gepa", "random", "null"}
    assert made[0]["meta"]["salt"] != made[1]["meta"]["salt"]
    assert made[0]["rows"] != made[1]["rows"]
    assert "x gepa" in capsys.readouterr().out
