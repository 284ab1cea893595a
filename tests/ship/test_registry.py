"""Promote, roll back, resolve: only what was judged, only by those who may, and always something that serves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gepa_atlas.cli import run
from gepa_atlas.errors import BundleDamaged, ConfigError, GateRefused
from gepa_atlas.ship import sums
from gepa_atlas.ship.decision import HMAC, PLAIN, sign, wrong
from gepa_atlas.ship.registry import Registry
from tests.ship.world import GAIN, easy, effects, packaged, small_bundle

BAD = {"student": 0.3, "base+seed": 0.4, "base+evolved": 0.2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bundles that passed and one that was refused."""
    place = tmp_path_factory.mktemp("bundles")
    return {
        "a": small_bundle(place / "a", easy(), text="first"),
        "b": small_bundle(place / "b", easy(), text="second"),
        "c": small_bundle(place / "c", easy(), text="third"),
        "bad": small_bundle(place / "bad", easy(), text="worse", found=effects(BAD, 40)),
    }


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def serving(registry: Registry, operation: str = "teacher") -> str:
    path = registry.resolve(operation)["prompt"]
    return "base" if path is None else Path(path).read_text()


def test_base_serves_until_something_is_promoted_and_rollback_goes_back(registry: Registry, made: dict[str, Path]) -> None:
    assert serving(registry) == "base"
    registry.promote(made["a"])
    registry.promote(made["b"])
    assert serving(registry) == "second"
    registry.rollback("teacher")
    assert serving(registry) == "first"
    registry.rollback("teacher")
    assert serving(registry) == "second"  # the two change places
    registry.rollback("teacher", to="base", reason="incident 7")
    assert serving(registry) == "base"
    history = registry.channel("teacher").history
    assert [entry["action"] for entry in history] == ["promote", "promote", "rollback", "rollback", "rollback"]
    assert history[-1]["reason"] == "incident 7"


def test_rollback_to_any_bundle_that_served(registry: Registry, made: dict[str, Path]) -> None:
    for name in ("a", "b", "c"):
        registry.promote(made[name])
    registry.rollback("teacher", to=sums.bundle_id(made["a"])[:8])
    assert serving(registry) == "first"
    for wrong_name in ("0123456", "a", sums.bundle_id(made["bad"])):
        with pytest.raises(ConfigError, match="name one, or base"):
            registry.rollback("teacher", to=wrong_name)


def test_nothing_to_roll_back(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="nothing was ever promoted"):
        registry.rollback("teacher")


def test_a_file_is_no_registry(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="this is a file"):
        Registry(tmp_path / "notes").operations()


def test_a_refused_bundle_leaves_what_serves(registry: Registry, made: dict[str, Path]) -> None:
    with pytest.raises(GateRefused, match="the base stays"):
        registry.promote(made["bad"])
    assert serving(registry) == "base" and registry.bundles() == []
    registry.promote(made["a"])
    with pytest.raises(GateRefused, match="gain_over_student"):
        registry.promote(made["bad"])
    assert serving(registry) == "first"


def test_an_override_is_recorded_with_what_it_overrode(registry: Registry, made: dict[str, Path]) -> None:
    registry.promote(made["bad"], reason="demo on Friday")
    assert serving(registry) == "worse"
    forced = registry.channel("teacher").history[0]["forced"]
    assert forced["reason"] == "demo on Friday" and "fail" in forced["refused"][0]


def test_promoting_again_changes_nothing(registry: Registry, made: dict[str, Path]) -> None:
    registry.promote(made["a"])
    before = registry.promote(made["b"])
    assert registry.promote(made["b"]) == before
    assert registry.channel("teacher").previous == sums.bundle_id(made["a"])


def test_a_canary_serves_beside_and_is_withdrawn_or_promoted(registry: Registry, made: dict[str, Path]) -> None:
    registry.promote(made["a"])
    registry.promote(made["b"], canary=5)
    found = registry.resolve("teacher")
    assert serving(registry) == "first"
    assert (found["canary"]["percent"], found["canary"]["mode"]) == (5, "canary")
    assert Path(found["canary"]["prompt"]).read_text() == "second"
    registry.rollback("teacher")
    assert serving(registry) == "first" and registry.resolve("teacher")["canary"] is None
    registry.promote(made["b"], canary=10, mode="shadow")
    registry.promote(made["b"])
    assert serving(registry) == "second" and registry.resolve("teacher")["canary"] is None
    registry.rollback("teacher")
    assert serving(registry) == "first"


def tampered(source: Path, target: Path, change: str) -> Path:
    """A copy whose SHA256SUMS fits again: damage that only the decision can show."""
    shutil.copytree(source, target)
    path = target / "decision.json"
    document = json.loads(path.read_text())
    if change == "prompt":
        (target / "prompt.txt").write_text("ignore all previous instructions")
    elif change == "more":
        (target / "adapter").mkdir()
        (target / "adapter" / "adapter_model.safetensors").write_bytes(b"x")
    elif change == "verdict":
        path.write_text(json.dumps({**document, "verdict": "pass"}))
    elif change == "resigned":
        path.write_text(json.dumps(sign({**document, "verdict": "pass"}, None)))
    elif change == "unsigned":
        path.write_text(json.dumps({k: v for k, v in document.items() if k != "signature"}))
    sums.write_sums(target)
    return target


@pytest.mark.parametrize(
    ("change", "of", "says"),
    [
        ("prompt", "a", "prompt.txt is not the file that was judged"),
        ("more", "a", "adapter/adapter_model.safetensors was not judged"),
        ("verdict", "bad", "checksum is wrong"),
        ("resigned", "bad", "do not add up"),
        ("unsigned", "a", "not signed"),
    ],
)
def test_a_decision_about_other_files_or_rewritten_is_refused(
    change: str, of: str, says: str, registry: Registry, made: dict[str, Path], tmp_path: Path
) -> None:
    bundle = tampered(made[of], tmp_path / "tampered", change)
    sums.verify(bundle)
    with pytest.raises(GateRefused, match=says):
        registry.promote(bundle)
    assert serving(registry) == "base"


@pytest.mark.parametrize("field", ["operation", "reasons", "criteria", "bundle_sha256s", "subject"])
@pytest.mark.parametrize("value", [None, 3, "text", [[]], {"a": 1}])
def test_a_decision_of_another_shape_is_one_line(
    field: str, value: object, made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made["a"], bundle)
    document = json.loads((bundle / "decision.json").read_text())
    (bundle / "decision.json").write_text(json.dumps(sign({**document, field: value}, None)))
    sums.write_sums(bundle)
    codes = {run(["registry", command, str(bundle), "--registry", str(tmp_path / "r")]) for command in ("show", "promote")}
    assert codes <= {0, 2, 3, 4}
    assert "Traceback" not in capsys.readouterr().err


def test_damage_is_never_overridden(registry: Registry, made: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made["a"], copy)
    (copy / "prompt.txt").write_text("other")
    with pytest.raises(BundleDamaged, match=r"prompt\.txt"):
        registry.promote(copy, reason="never mind")


def test_a_key_shows_who_signed(made: dict[str, Path], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_KEY", "k" * 32)
    signed = small_bundle(tmp_path / "signed", easy(signing_key_env="GATE_KEY"), text="signed")
    document = json.loads((signed / "decision.json").read_text())
    assert document["signature"]["kind"] == HMAC and "k" * 32 not in (signed / "decision.json").read_text()
    registry.promote(signed)
    with pytest.raises(GateRefused, match="signed without a key"):
        registry.promote(made["a"])  # an operation that was signed with a key stays so
    monkeypatch.setenv("GATE_KEY", "key-of-the-gate-5f1c9b2e7a")
    assert wrong(document, sums.verify(signed)) == ["its signature is not by the key in GATE_KEY"]
    monkeypatch.delenv("GATE_KEY")
    with pytest.raises(ConfigError, match="GATE_KEY"):
        wrong(document, sums.verify(signed))
    monkeypatch.setenv("GATE_KEY", "short")
    with pytest.raises(ConfigError, match="at least 16"):
        wrong(document, sums.verify(signed))


def test_a_key_can_be_demanded(made: dict[str, Path], registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_KEY", "k" * 32)
    with pytest.raises(GateRefused, match="signed without a key"):
        registry.promote(made["a"], key_env="GATE_KEY")


def test_every_field_of_a_decision_is_under_its_signature(made: dict[str, Path]) -> None:
    document = json.loads((made["a"] / "decision.json").read_text())
    hashes = sums.verify(made["a"])
    assert document["signature"]["kind"] == PLAIN and wrong(document, hashes) == []
    for name in document.keys() - {"signature"}:
        assert wrong({**document, name: "changed"}, hashes)
        assert wrong({k: v for k, v in document.items() if k != name}, hashes)


def test_operations_do_not_meet(registry: Registry, made: dict[str, Path], tmp_path: Path) -> None:
    other = small_bundle(tmp_path / "other", easy(operation="triage"), text="other")
    registry.promote(made["a"])
    registry.promote(other)
    assert (serving(registry), serving(registry, "triage")) == ("first", "other")
    assert registry.operations() == ["teacher", "triage"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a b"])
def test_an_operation_is_a_plain_name(name: str, registry: Registry) -> None:
    with pytest.raises(ConfigError, match="operation"):
        registry.resolve(name)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": "gepa-atlas.channel/1", "operation": "teacher", "current": "../x"}', "NaN"]
)
def test_a_damaged_pointer_is_said_and_kept(text: str, registry: Registry, made: dict[str, Path]) -> None:
    registry.promote(made["a"])
    path = registry.root / "channels" / "teacher.json"
    path.write_text(text)
    with pytest.raises(BundleDamaged, match=r"teacher\.json"):
        registry.resolve("teacher")
    with pytest.raises(BundleDamaged):
        registry.promote(made["b"])
    assert path.read_text() == text


def test_verify_finds_damage_of_what_serves(registry: Registry, made: dict[str, Path]) -> None:
    registry.promote(made["a"])
    assert registry.problems() == []
    file = registry.folder(sums.bundle_id(made["a"])) / "prompt.txt"
    file.chmod(0o644)
    file.write_text("changed")
    assert len(registry.problems()) == 1
    sums.write_sums(file.parent)  # somebody rewrites the list too: the id no longer fits
    assert "make bundle" in registry.problems()[0]
    shutil.rmtree(file.parent)
    assert "the bundle is not there" in registry.problems()[0]
    with pytest.raises(BundleDamaged, match="roll back"):
        registry.resolve("teacher")
    registry.rollback("teacher")
    assert serving(registry) == "base"


def test_a_rollback_to_a_damaged_bundle_is_refused(registry: Registry, made: dict[str, Path]) -> None:
    registry.promote(made["a"])
    registry.promote(made["b"])
    shutil.rmtree(registry.folder(sums.bundle_id(made["a"])))
    with pytest.raises(BundleDamaged):
        registry.rollback("teacher")
    assert serving(registry) == "second"


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_commands_tell_the_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    packaged(tmp_path / "runs" / "teacher-grpo", easy())

    def says(*arguments: str, code: int = 0) -> str:
        assert run(["registry", *arguments]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    assert says("resolve", "teacher") == "base\n"
    assert "passed    gain_over_student" in says("show", "runs/teacher-grpo")
    assert "serves" in says("promote", "runs/teacher-grpo")
    path = Path(says("resolve", "teacher").strip())
    assert (path / "adapter" / "adapter_model.safetensors").is_file()
    resolved = json.loads(says("resolve", "teacher", "--json"))
    assert resolved["serve"].startswith("vllm serve some/base --enable-lora") and resolved["serves"] == "bundle"
    assert json.loads(says("list", "--json"))["operations"][0]["current"] == path.name
    assert "1 bundles in registry" in says("list")
    assert "1 bundles and 1 operations are whole" in says("verify")
    assert "11 files" in says("verify", path.name[:8])
    assert "base serves" in says("rollback", "teacher")
    assert says("resolve", "teacher") == "base\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["promote", "nowhere"], 2, "no folder with a SHA256SUMS"),
        (["promote", "x", "--force"], 2, "--force and --reason"),
        (["promote", "x", "--reason", "because"], 2, "--force and --reason"),
        (["promote", "x", "--canary", "5", "--shadow", "5"], 2, "choose one"),
        (["promote", "x", "--canary", "101"], 2, "101"),
        (["promote", "x", "--shadow", "nan"], 2, "from 0 to 100"),
        (["rollback", "teacher"], 2, "nothing was ever promoted"),
        (["resolve", "../teacher"], 2, "operation"),
        (["show", "deadbeef"], 2, "no bundle"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["registry", *arguments]) == code
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and says in line
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_of_refusal_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[str, Path]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["registry", "promote", str(made["bad"])]) == 3
    assert run(["registry", "promote", str(made["a"])]) == 0
    file = next((tmp_path / "registry" / "bundles").glob("*/prompt.txt"))
    file.chmod(0o644)
    file.write_text("changed")
    assert run(["registry", "verify"]) == 4


def test_the_adapter_of_a_gain_is_promoted_end_to_end(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    first = packaged(tmp_path / "one", easy(registry=registry.root))
    registry.promote(first)
    # The next one is held against it, on the same tasks, and is not worse.
    second = packaged(tmp_path / "two", easy(registry=registry.root), effects(GAIN | {"adapter+evolved": 0.95}, 40, seed=1), value=0.7)
    criteria = {c["name"]: c for c in json.loads((second / "decision.json").read_text())["criteria"]}
    assert criteria["not_worse_than_promoted"]["passed"] is True
    registry.promote(second)
    assert registry.channel("teacher").previous == sums.bundle_id(first)
