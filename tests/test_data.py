"""Examples from files and functions: split by id, checked, and honest about what cannot be claimed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.data import DataConfig, Dataset, load_examples
from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.settings import load


def rows(count: int = 120) -> list[dict[str, Any]]:
    return [{"id": f"e{n}", "question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(count)]


def jsonl(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(v) + "\n" for v in values), "utf-8")
    return path


def read(directory: Path, config: dict[str, Any]) -> Dataset:
    return load_examples(load(DataConfig, config, "data"), directory)


def refusal(directory: Path, config: dict[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        read(directory, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- formats ----------------------------------------------------------------------------------------------------------

HARD = ["braces {question} {0} {{}}", "quotes \" ' `", "lines\nand\ttabs", "emoji 🧑‍🚀 and \u2028 separators", "x" * 100_000]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
def test_every_format_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    import csv

    values = [{"id": str(n), "question": f"{n} {q}", "answer": q} for n, q in enumerate(HARD * 6)]
    path = tmp_path / f"d.{suffix}"
    if suffix in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "question", "answer"], delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows(values)
    elif suffix == "json":
        path.write_text(json.dumps(values), "utf-8")
    else:
        jsonl(path, values)
    dataset = read(tmp_path, {"path": path.name})
    found = {e.id: e for e in (*dataset.train, *dataset.val, *dataset.test)}
    assert {i: (e.question, e.answers) for i, e in found.items()} == {v["id"]: (v["question"], (v["answer"],)) for v in values}


def test_columns_are_found_by_usual_names_or_by_mapping(tmp_path: Path) -> None:
    usual = [{"prompt": f"q{n}", "ground_truth": ["a", "b"], "additional_context": "c"} for n in range(40)]
    mapped = [{"Frage": f"q{n}", "Gold": 3, "Text": {"k": 1}} for n in range(40)]
    jsonl(tmp_path / "usual.jsonl", usual)
    jsonl(tmp_path / "mapped.jsonl", mapped)
    example = read(tmp_path, {"path": "usual.jsonl"}).train[0]
    assert (example.answers, example.context) == (("a", "b"), "c")
    example = read(tmp_path, {"path": "mapped.jsonl", "columns": {"question": "Frage", "answer": "Gold", "context": "Text"}}).train[0]
    assert (example.answers, example.context) == (("3",), '{"k": 1}')


def test_a_python_function_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Row:\n    n: int\n"
        "def make(count):\n    return ({'question': f'q{Row(n).n}', 'answer': n} for n in range(count))\n"
    )
    assert len(read(tmp_path, {"function": "source.py:make", "params": {"count": 40}}).examples) == 40


def test_the_toy_world_is_a_source() -> None:
    dataset = load_examples(DataConfig(toyworld={"examples": 40}), Path())
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (12, 12, 16)


# -- splits -----------------------------------------------------------------------------------------------------------


def test_splits_follow_ids_and_not_positions(tmp_path: Path) -> None:
    values = rows()
    first = read(jsonl(tmp_path / "a.jsonl", values).parent, {"path": "a.jsonl"})
    random.Random(1).shuffle(values)
    jsonl(tmp_path / "b.jsonl", [*values, {"id": "new", "question": "new?", "answer": "x"}][:-1])
    assert read(tmp_path, {"path": "b.jsonl"}) == first
    jsonl(tmp_path / "c.jsonl", [*values, {"id": "new", "question": "new?", "answer": "x"}])
    grown = read(tmp_path, {"path": "c.jsonl"})
    assert {e.id: e.split for e in first.examples}.items() <= {e.id: e.split for e in grown.examples}.items()
    assert grown.fingerprint != first.fingerprint


def test_shares_are_kept_in_expectation(tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", rows(2000))
    dataset = read(tmp_path, {"path": "d.jsonl", "split": {"train": 0.6, "val": 0.2, "test": 0.2}})
    assert [round(len(part) / 2000, 1) for part in (dataset.train, dataset.val, dataset.test)] == [0.6, 0.2, 0.2]


def test_a_split_column_decides(tmp_path: Path) -> None:
    names = ("train", "validation", "test")
    jsonl(tmp_path / "d.jsonl", [{**r, "split": names[n % 3]} for n, r in enumerate(rows(9))])
    dataset = read(tmp_path, {"path": "d.jsonl"})
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (3, 3, 3)


def test_explicit_files_decide(tmp_path: Path) -> None:
    for name, part in (("a", rows()[:10]), ("b", rows()[10:20]), ("c", rows()[20:30])):
        jsonl(tmp_path / f"{name}.jsonl", part)
    dataset = read(tmp_path, {"train": "a.jsonl", "val": "b.jsonl", "test": "c.jsonl"})
    assert {e.id for e in dataset.test} == {f"e{n}" for n in range(20, 30)}


def test_max_examples_takes_the_same_ones_whatever_the_order(tmp_path: Path) -> None:
    values = rows()
    jsonl(tmp_path / "a.jsonl", values)
    jsonl(tmp_path / "b.jsonl", values[::-1])
    few = read(tmp_path, {"path": "a.jsonl", "max_examples": 30})
    assert len(few.examples) == 30
    assert few == read(tmp_path, {"path": "b.jsonl", "max_examples": 30})


def test_what_cannot_be_claimed_is_said(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", rows()[:10])
    jsonl(tmp_path / "b.jsonl", [{"question": f"no gold {n}"} for n in range(3)])
    notes = " ".join(read(tmp_path, {"train": "a.jsonl", "val": "b.jsonl"}).notes)
    assert "no test split" in notes and "3 of 13 examples have no gold answer" in notes
    jsonl(tmp_path / "c.jsonl", rows(40))
    notes = " ".join(read(tmp_path, {"train": "c.jsonl"}).notes)
    assert "only a train set is given" in notes and "test examples: the interval" in notes


# -- duplicates -------------------------------------------------------------------------------------------------------


def test_the_same_example_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", rows()[:10])
    jsonl(tmp_path / "b.jsonl", [{"id": "other", "question": "what is  3 + 1? ", "answer": "4"}])
    message = refusal(tmp_path, {"train": "a.jsonl", "val": "b.jsonl"})
    assert "'other' (val) has the same question as 'e3' (train" in message and "b.jsonl:1" in message and "a.jsonl:4" in message
    jsonl(tmp_path / "b.jsonl", [{"id": "e3", "question": "another", "answer": "4"}])
    assert "has the same id as 'e3'" in refusal(tmp_path, {"train": "a.jsonl", "val": "b.jsonl"})


def test_duplicates_inside_a_split_are_dropped_and_said(tmp_path: Path) -> None:
    values = [{"question": r["question"], "answer": r["answer"]} for r in rows()]
    jsonl(tmp_path / "d.jsonl", [*values, *values[:5]])
    dataset = read(tmp_path, {"path": "d.jsonl"})
    assert len(dataset.examples) == 120
    assert "5 duplicates inside a split dropped" in dataset.notes


def test_the_same_question_with_another_context_is_another_question(tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", [{"question": "Summarize.", "context": f"text {n}"} for n in range(40)])
    assert len(read(tmp_path, {"path": "d.jsonl"}).examples) == 40


def test_one_id_for_two_questions_is_refused(tmp_path: Path) -> None:
    jsonl(tmp_path / "d.jsonl", [*rows(40), {"id": "e1", "question": "another?", "split": ""}])
    assert "the id 'e1' is that of another question" in refusal(tmp_path, {"path": "d.jsonl"})


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("d.jsonl", b"", "no examples in it"),
        ("d.jsonl", b"\n\n", "no examples in it"),
        ("d.json", b"", "no examples in it"),
        ("d.json", b"[]", "no examples in it"),
        ("d.csv", b"", "no examples in it"),
        ("d.csv", b"question,answer\n", "no examples in it"),
        ("d.jsonl", b'{"question": "a"}\n{"question": \n', "d.jsonl:2: not valid JSON"),
        ("d.jsonl", b'{"question": "a", "answer": NaN}\n', "d.jsonl:1: NaN is not JSON"),
        ("d.jsonl", b'"text"\n', "d.jsonl:1: a str, not a mapping"),
        ("d.jsonl", b'{"question": " "}\n', "d.jsonl:1: the question is empty"),
        ("d.jsonl", b'{"question": ["a"]}\n', "the question is a list; it must be text"),
        ("d.jsonl", b'{"task": "a", "gold": "b"}\n', "no column question or prompt or input for the question; the columns are task, gold"),
        ("d.jsonl", b'{"question": "\\ud800"}\n', "half of a character"),
        ("d.jsonl", b'{"question": "a", "split": "holdout"}\n', "split is 'holdout'; use train, val or test"),
        ("d.jsonl", b'{"question": "a\xff"}\n', "d.jsonl:1: not UTF-8"),
        ("d.jsonl", b"[" * 100_000, "nested too deeply"),
        ("d.json", b'{"a": 1}', "a .json data file is a list"),
        ("d.csv", b"question,answer\na,b,c\n", "d.csv:2: 3 fields where the header has 2"),
        ("d.csv", b"question,answer\na\n", "d.csv:2: 1 fields where the header has 2"),
        ("d.csv", b"question,question\na,b\n", "the column 'question' is there twice"),
        ("d.csv", b'question,answer\n"a,b\n', "not valid CSV"),
        ("d.parquet", b"PAR1", "unknown data format .parquet; use .jsonl"),
        ("d.jsonl", b'{"question": "only one"}\n', "split is empty"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert says in refusal(tmp_path, {"path": name})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"path": "none.jsonl"}, "no such data file"),
        ({"path": "."}, "unknown data format"),
        ({"path": "d.jsonl", "columns": {"answer": "gold"}}, "no column 'gold' for the answer; the columns are id, question, answer"),
        ({"function": "nocolon"}, "write it as module:function"),
        ({"function": "none.py:f"}, "there is no file"),
        ({"function": "no_such_module_here:f"}, "importing it raised ModuleNotFoundError"),
        ({"function": "bad.py:none"}, "has no function 'none'"),
        ({"function": "bad.py:raises"}, "raised RuntimeError: two lines"),
        ({"function": "bad.py:raises", "params": {"x": 1}}, "cannot be called with params ['x']"),
        ({"function": "bad.py:number"}, "raised TypeError"),
        ({"function": "bad.py:objects"}, "a object, not a mapping"),
        ({"function": "bad.py:unserial"}, "holds a value that is not JSON"),
    ],
)
def test_a_bad_source_is_one_line(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    jsonl(tmp_path / "d.jsonl", rows())
    (tmp_path / "bad.py").write_text(
        "def raises():\n    raise RuntimeError('two\\nlines')\n"
        "def number():\n    return 3\n"
        "def objects():\n    return [object()]\n"
        "def unserial():\n    return [{'question': 'q', 'extra': object()}]\n"
    )
    assert says in refusal(tmp_path, config)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "exactly one source is needed"),
        ({"path": "a", "function": "b:c"}, "exactly one source is needed"),
        ({"val": "a"}, "give train too"),
        ({"train": "a", "test": "b"}, "without val"),
        ({"path": "a", "params": {"x": 1}}, "give function too"),
        ({"path": "a", "split": {"train": 0.5, "val": 0.2}}, "must add up to 1"),
        ({"path": "a", "split": {"train": 1}}, "train and val need a share above 0"),
    ],
)
def test_a_bad_data_section_is_one_line(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(DataConfig, config, "data")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("async def f(): return []", "is async"),
        ("def f(): return [{'question': 'q', 'answer': {1, 2}}]", "not JSON"),
        ("x = []\nx.append(x)\ndef f(): return [{'question': 'q', 'answer': x}]", "not JSON"),
        ("def f(): raise SystemExit(3)", "SystemExit: 3"),
        ("from gepa_atlas import Example\ndef f(): return [Example('a', None, ('a',))]", "are texts"),
        ("from gepa_atlas import Example\ndef f(): return [Example('a', 'q', 'a')]", "tuples of texts"),
        ("from gepa_atlas import Example\ndef f(): return [Example('a', 'q', ('a',), '', 'dev')]", "use train, val or test"),
        ("from gepa_atlas import Example\ndef f(): return [Example('a', 'q\\ud800', ('a',))]", "half of a character"),
    ],
)
def test_what_a_function_returns_is_checked(tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "rows.py").write_text(code)
    with pytest.raises(DataError, match=says):
        load_examples(DataConfig(function="rows.py:f"), tmp_path)
