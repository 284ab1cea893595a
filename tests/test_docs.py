"""Every Python example of the documentation is run here, and prints what the page says it prints."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/python.md", "docs/bridges.md", "docs/handoff.md", "docs/sweeps.md")


def examples() -> list[object]:
    """(code, output that follows it) of each python block, named by page and line."""
    found: list[object] = []
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text, re.MULTILINE | re.DOTALL):
            found.append(pytest.param(block[1], block[2], id=f"{page}:{text[: block.start()].count(chr(10)) + 1}"))
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of dspy and its guests
@pytest.mark.parametrize(("code", "says"), examples())
def test_it_runs(code: str, says: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if "dspy" in code:
        pytest.importorskip("dspy", reason="the extra [dspy] is not installed; [dev] has it")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    runpy.run_path("example.py", run_name="__main__")
    if says is not None:
        assert capsys.readouterr().out == says
