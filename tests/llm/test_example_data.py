"""The quickstart's data: regenerated to the byte, no template in two splits, the answer readable from the question."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

DATA = Path(__file__).parents[2] / "configs/examples/data"


def test_orders_are_what_the_script_writes(tmp_path: Path) -> None:
    shutil.copy(DATA / "make_data.py", tmp_path)
    subprocess.run([sys.executable, "make_data.py"], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "orders.jsonl").read_bytes() == (DATA / "orders.jsonl").read_bytes()


def test_orders_are_sound() -> None:
    rows = [json.loads(line) for line in (DATA / "orders.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter(r["split"] for r in rows) == {"train": 96, "val": 40, "test": 40}
    assert len({r["id"] for r in rows}) == len({r["question"] for r in rows}) == len({r["answer"] for r in rows}) == len(rows)
    assert all(r["question"].count(r["answer"]) == 1 and "{" not in r["question"] for r in rows)
