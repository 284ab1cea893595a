"""The files of an adapter: what is wrong with them has a name, whatever they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.errors import ConfigError
from gepa_atlas.ship.adapter import Unreadable, problems, rank, serve_line, shipped_files, tensors
from tests.ship.world import BASE_SHA, make_adapter, safetensors

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter")


def test_a_sound_adapter_has_no_problem(adapter: Path) -> None:
    assert problems(adapter, BASE_SHA, 1) == [] and problems(adapter, None, 1) == []
    assert [f.name for f in shipped_files(adapter)] == ["adapter_config.json", WEIGHTS, "atlas.json"]


def test_a_file_of_the_real_library_is_read(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="the extra [train] is not installed; [dev] has it")
    for kind in (np.float32, np.float16, np.float64, np.int64):
        library.save_file({"w": np.ones((3, 5), kind), "empty": np.ones((0, 4), kind)}, tmp_path / "w.safetensors", {"format": "pt"})
        assert dict(tensors(tmp_path / "w.safetensors")) == {"w": True, "empty": True}
    for bad in (np.nan, np.inf, -np.inf):
        library.save_file({"w": np.array([1.0, bad], np.float32)}, tmp_path / "w.safetensors")
        assert dict(tensors(tmp_path / "w.safetensors")) == {"w": False}


@pytest.mark.parametrize(("dtype", "kind"), [("F64", np.float64), ("F32", np.float32), ("F16", np.float16)])
@given(data=st.data())
@settings(max_examples=20)
def test_finite_is_what_numpy_says(dtype: str, kind: type, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    raw = data.draw(st.binary(min_size=kind(0).nbytes, max_size=64))
    values = np.frombuffer(raw[: len(raw) // kind(0).nbytes * kind(0).nbytes], kind)
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    path.write_bytes(safetensors({"w": values}, dtype))
    assert dict(tensors(path)) == {"w": bool(np.isfinite(values).all())}


@pytest.mark.parametrize(("bits", "finite"), [(0x3F80, True), (0x7F7F, True), (0x7F80, False), (0xFF80, False), (0x7FC0, False)])
def test_bfloat16_is_read_by_its_bits(bits: int, finite: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({"w": np.array([0, bits], np.uint16)}, "BF16"))
    assert dict(tensors(path)) == {"w": finite}


def test_each_problem_is_named(adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes(safetensors({"w": np.array([np.nan], np.float32)}))
    (adapter / "optimizer.pt").write_bytes(b"")
    (adapter / "ref").mkdir()
    (adapter / "atlas.json").write_text(json.dumps({"base_sha256": "c" * 64}))
    found = " | ".join(problems(adapter, BASE_SHA, 0.0001))
    for said in ("optimizer.pt", "ref", "NaN", "hash cccc", "more than max_adapter_mb"):
        assert said in found, found
    (adapter / "atlas.json").unlink()
    (adapter / WEIGHTS).unlink()
    found = " | ".join(problems(adapter, None, 1))
    assert "no safetensors file" in found and "does not say which base" in found
    assert "no adapter" in problems(adapter / "nowhere", None, 1)[0]


def test_a_link_does_not_ship(adapter: Path) -> None:
    os.symlink("/etc/hostname", adapter / "config.json")
    assert "config.json" in problems(adapter, BASE_SHA, 1)[0]
    assert "config.json" not in [f.name for f in shipped_files(adapter)]


@given(data=st.data())
@settings(max_examples=60)
def test_a_damaged_file_is_unreadable_or_read_never_a_traceback(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = safetensors({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)})
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4))
    damaged = bytearray(whole)
    for place, value in at:
        damaged[place] = value
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    path.write_bytes(bytes(damaged[:cut]))
    try:
        found = dict(tensors(path))
    except Unreadable as error:
        assert "\n" not in str(error)
    else:
        assert cut == len(whole) and len(found) <= 2


def test_the_serve_line_takes_a_rank_that_vllm_knows(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 16, "rank_pattern": {"q_proj": 48}}))
    assert rank(adapter) == 48
    assert serve_line("my op", adapter, "Qwen/Qwen3-8B", Path("adapter")) == (
        "vllm serve Qwen/Qwen3-8B --enable-lora --lora-modules 'my op=adapter' --max-lora-rank 64"
    )
    (adapter / "adapter_config.json").unlink()
    assert serve_line("op", adapter, "x").startswith(f"vllm serve {adapter} --served-model-name op")
    for text in ("{", '{"r": "high"}', "[]"):
        (adapter / "adapter_config.json").write_text(text)
        with pytest.raises(ConfigError, match="rank"):
            rank(adapter)
