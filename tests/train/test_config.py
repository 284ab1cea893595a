"""Training configurations: those in the repository, and what a wrong one is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.train.config import LoadedTrain, TrainConfig, load_train_config
from gepa_atlas.train.fields import OURS, check_fields, fields_of, trainer_fields
from gepa_atlas.train.launch import accelerate_kind, launch_lines
from gepa_atlas.train.stages import chain

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted((ROOT / "configs" / "train").glob("*.yaml"))
PARTS = sorted(p for group in ("data", "trainer", "model") for p in (ROOT / "configs" / "train" / group).glob("*.yaml"))


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "my.yaml"


def loaded(path: Path, *sets: str, text: str = "model: {source: tiny}\n") -> LoadedTrain:
    if not path.exists():
        path.write_text(text)
    return load_train_config(path, sets, {})


def test_every_kind_of_machine_has_one() -> None:
    names = {path.stem for path in CONFIGS}
    assert names == {"cpu_smoke", "smollm2_cpu", "one_gpu", "server", "fsdp2", "zero3", "atlas_teacher", "quickstart"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_each_is_valid_to_the_last_name(path: Path) -> None:
    """Keys by our models, names below `trl:` by the installed trainers, accelerate's file by accelerate."""
    found = load_train_config(path, env={})
    check_fields(found.config)
    assert [stage.name for stage in chain(found.config)][-3:] == ["eval", "gate", "package"]
    if found.config.launch.config is not None:
        from accelerate.commands.config.config_args import load_config_from_file

        given = load_config_from_file(str(found.base_dir / found.config.launch.config))
        assert str(given.distributed_type.value) == accelerate_kind(found) and given.num_processes >= 4
        assert given.mixed_precision == "bf16"
    if found.config.optimize is not None:
        assert (found.base_dir / found.config.optimize).exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_each_says_how_it_is_run(path: Path) -> None:
    command = re.search(r"^# Run it:  gepa-atlas grpo (?:run|launch) --config (\S+)", path.read_text(), re.MULTILINE)
    assert command and command[1] == str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PARTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_each_part_goes_over_the_teacher(path: Path) -> None:
    plain = load_train_config(ROOT / "configs" / "train" / "atlas_teacher.yaml", env={}).config
    over = load_train_config(ROOT / "configs" / "train" / "atlas_teacher.yaml", env={}, over=[path]).config
    changes_nothing = ("trainer/grpo", "model/qwen3_8b")
    assert (over == plain) == (f"{path.parent.name}/{path.stem}" in changes_nothing)


def test_the_atlas_teacher_keeps_what_atlas_says() -> None:
    config = load_train_config(ROOT / "configs" / "train" / "atlas_teacher.yaml", env={"STUDENT_MODEL": "my-model"}).config
    assert (config.model.id, config.model.context, config.grpo.beta) == ("Qwen/Qwen3-8B-Base", 8192, 0.04)
    assert (config.grpo.num_generations, config.grpo.temperature, config.grpo.max_completion_length) == (32, 0.7, 4096)
    assert config.student is not None and config.student.params["model"] == "my-model"


def test_every_key_has_a_word_about_it() -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    named = set(re.findall(r"[\w.]+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    assert set(TrainConfig.model_fields) - named == set()


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["grpo.betta=1"], "grpo.betta: unknown key; did you mean 'beta'?"),
        (["handoff.min_delt=1"], "handoff.min_delt: unknown key; did you mean 'min_delta'?"),
        (["gate.alfa=1"], "gate.alfa: unknown key; did you mean 'alpha'?"),
        (["schema=atlas/1"], "schema: this reads gepa-atlas.grpo/1"),
        (["model={source: pretrained}"], "source pretrained needs one"),
        (["model.id=x"], "embedded and tiny have none"),
        (["grpo.num_generations=5"], "5 does not divide the 8 x 1 x 1 completions of a step"),
        (["grpo.scale_rewards=group"], "erases the weight of losses"),
        (["grpo.max_completion_length=2048"], "leave no room for a prompt in model.context 2048"),
        (["handoff.prompt_mode=population", "vllm.mode=server", "vllm.url=http://127.0.0.1:1"], "is sent the first one only"),
        (["vllm.mode=server"], "launch.backend: accelerate"),
        (["sft.enabled=false", "grpo.enabled=false"], "nothing would be trained"),
        (["optimize=a.yaml", "handoff.path=b"], "keep one of the two"),
        (["grpo.beta=true"], "this takes a number, not true or false"),
    ],
)
def test_a_wrong_key_is_named(write: Path, sets: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        loaded(write, *sets)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("grpo.trl.top_entropy_quantil=0.5", "GRPOConfig has no such field; did you mean 'top_entropy_quantile'?"),
        ("grpo.trl.max_prompt_length=512", "trl 0.28 removed it"),
        ("grpo.trl.beta=0.1", "set grpo.beta instead"),
        ("sft.trl.packng=true", "did you mean 'packing'?"),
        ("sft.trl.max_seq_length=9", "it is sft.max_length"),
        ("preference.trl.loss_typ=hinge", "did you mean 'loss_type'?"),
        ("distill.trl.teacher_model_knd=ema", "did you mean 'teacher_model_kind'?"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*trl.experimental")
def test_a_name_that_trl_does_not_know_is_named(write: Path, assignment: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        check_fields(loaded(write, assignment).config)


def test_names_that_trl_knows_pass(write: Path) -> None:
    check_fields(loaded(write, "grpo.trl.top_entropy_quantile=0.5", "sft.trl.packing=true").config)


@pytest.mark.filterwarnings("ignore:.*trl.experimental")
def test_what_our_keys_stand_for_exists(write: Path) -> None:
    """Each name that is refused in favour of a key of ours is a field of its trainer."""
    for method in ("dpo", "kto"):
        for section, (module, name) in trainer_fields(loaded(write, f"preference.method={method}").config).items():
            missing = OURS[section].keys() - fields_of(module, name) - ({"undesirable_weight"} if method == "dpo" else set())
            assert not missing, (section, missing)


def test_an_export_path_goes_before_making_traces(write: Path) -> None:
    write.write_text("model: {source: tiny}\noptimize: a.yaml\n")
    assert load_train_config(write, (), {}, flags={"handoff.path": "/x"}).config.optimize is None
    assert [s.name for s in chain(loaded(write).config)][:2] == ["optimize", "export"]


def test_secrets_are_saved_as_they_were_written(write: Path) -> None:
    write.write_text("model: {source: tiny}\nstudent: {provider: openai.chat, params: {model: m, api_key: '${MY_API_KEY}'}}\n")
    found = load_train_config(write, (), {"MY_API_KEY": "abcdefgh12345678"})
    assert "abcdefgh" not in str(found.resolved) and "${MY_API_KEY}" in str(found.resolved)
    assert found.config.student is not None and found.config.student.params["api_key"] == "abcdefgh12345678"


def test_nothing_is_launched_for_one_process(write: Path) -> None:
    found = loaded(write)
    assert launch_lines(found.config, found.base_dir, Path("/out"), "m") == []
