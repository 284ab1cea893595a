"""The embedded model in batches: the file is read right, and the answers are those of the product's servers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.smol.engine import Engine
from benchmarks.smol.gguf import Gguf
from benchmarks.smol.student import Served, prompt
from gepa_atlas.llm.llamacpp import weights
from gepa_atlas.llm.local import LocalModel

PAIRS = [("cat", "cats"), ("dog", "dogs"), ("house", "houses"), ("box", "boxes"), ("city", "cities")]
WORDS = ["bus", "lamp", "fish", "tree", "berry", "glass", "hat", "river", "fox", "bottle", "road", "sandwich", "phone", "4x4", "ticket"]
SHOWN = "Write the plural.\n" + "\n".join(f'Example: {{"input": "{a}", "output": "{b}"}}' for a, b in PAIRS)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def test_metadata_and_the_three_kinds_of_tensors_are_read(tmp_path: Path) -> None:
    codes = np.arange(32, dtype=np.uint8) % 16
    packed = (codes[:16] | (codes[16:] << 4)).tobytes()
    half = np.array([0.5, -2.0], np.float16).tobytes()
    blobs = [np.array([1.5, -2.5], np.float32).tobytes().ljust(32, b"\0"), (half[:2] + half[2:] + packed).ljust(32, b"\0")]
    blobs.append(half[:2] + np.arange(-16, 16, dtype=np.int8).tobytes())
    head = b"GGUF" + struct.pack("<IQQ", 3, 3, 2)
    head += _text("words") + struct.pack("<IIQ", 9, 8, 2) + _text("a") + _text("\u0120b") + _text("n") + struct.pack("<II", 4, 7)
    for name, shape, kind, offset in (("f", (2,), 0, 0), ("q4", (32,), 3, 32), ("q8", (16, 2), 8, 64)):
        head += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)
    file = tmp_path / "small.gguf"
    file.write_bytes(head.ljust(-(-len(head) // 32) * 32, b"\0") + b"".join(blobs))
    read = Gguf(file)
    assert read.metadata == {"words": ["a", "\u0120b"], "n": 7}
    assert read.tensor("f").tolist() == [1.5, -2.5]
    assert read.tensor("q4").tolist() == (codes * 0.5 - 2.0).tolist()
    assert read.tensor("q8").shape == (2, 16)
    assert read.tensor("q8").ravel().tolist() == [0.5 * n for n in range(-16, 16)]


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"something else that is long enough")
    with pytest.raises(ValueError, match=r"x\.gguf is no GGUF file"):
        Gguf(tmp_path / "x.gguf")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(weights())


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served(LocalModel())
    yield made
    made.close()


@pytest.mark.local
def test_answers_are_those_of_the_servers(engine: Engine, served: Served) -> None:
    asked = [prompt(SHOWN, word) for word in WORDS]
    ours, theirs = engine.answers(asked, 8), served.answers(asked, 8)
    same = sum(a.strip() == b.strip() for a, b in zip(ours, theirs, strict=True))
    assert same >= len(WORDS) - 2
    assert ours[WORDS.index("fox")].strip() == "foxes"


@pytest.mark.local
def test_an_answer_does_not_depend_on_what_is_asked_beside_it(engine: Engine) -> None:
    asked = [prompt(SHOWN, word) for word in WORDS]
    together = engine.answers(asked, 8)
    alone = [engine.answers([text], 8)[0] for text in asked]
    assert sum(a == b for a, b in zip(together, alone, strict=True)) >= len(WORDS) - 1
    fewer = prompt(SHOWN.rsplit("\n", 1)[0], "lamp")  # shares a part of its beginning with one that is already computed
    assert engine.answers([fewer], 8) == [" lamps"]


@pytest.mark.local
def test_a_prompt_longer_than_the_context_loses_its_beginning(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    long = prompt("Mind the form. " * 40 + "\n" + SHOWN, "lamp")
    assert len(engine.tokens(long)) > 192
    monkeypatch.setattr("benchmarks.smol.engine.CONTEXT", 128)
    assert engine.answers([long], 4)[0].strip()
    assert max(len(tokens) for tokens in engine.known) <= 128
