"""recorded: a judge that answers from a table of real judgments, so that a panel runs with no model and no key.

The table is a bank (see `rim.bank`): the case's example id is "subset/id" and its output is the number of the response; or JSON lines
`{"id", "output", "scores": {judge: score or [draws]}}` with the judged text itself.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gepa_atlas.errors import ConfigError
from gepa_atlas.ports import Case
from gepa_atlas.rim.bank import json_rows
from gepa_atlas.rim.judges.base import Door, JudgeSettings, missing
from gepa_atlas.types import JudgeScore

Table = dict[tuple[str, str], tuple[float | None, ...]]


class RecordedSettings(JudgeSettings):
    type: Literal["recorded"] = "recorded"
    table: str  # path of the .jsonl or .jsonl.gz file, relative to the configuration
    judge: str  # whose scores
    prompt: str = "base"  # of a bank
    draws: int = Field(default=1, ge=1)
    first: int = Field(default=0, ge=0)  # the draw to start from
    scale: tuple[float, float] = (1.0, 10.0)  # lowest and highest score of the table, mapped to 0 and 1

    @property
    def called(self) -> str:
        return self.name or self.judge

    @property
    def draw_count(self) -> int:
        return self.draws

    def build(self, door: Door) -> RecordedJudge:
        path = (door.base_dir / self.table).resolve()
        table = read_table(path, self.judge, self.prompt)
        if not table:
            raise ConfigError(f"rim.judges.{self.called}: {path} has no scores of {self.judge!r} under {self.prompt!r}; correct the names")
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        return RecordedJudge(self.called, f"recorded:{self.fingerprint()}:{content}", False, self, table)


@dataclass(frozen=True)
class RecordedJudge:
    name: str
    identity: str
    needs_answer: bool
    settings: RecordedSettings
    table: Table

    async def judge(self, case: Case) -> JudgeScore:
        row = self.table.get((case.example.id, case.output.strip()))
        if row is None:
            return missing(self.name, "not_recorded", f"the table has no judgment of this output of {case.example.id!r}")
        s = self.settings
        low, high = s.scale
        drawn = [row[(s.first + k) % len(row)] for k in range(s.draws)]
        values = [min(1.0, max(0.0, (v - low) / (high - low))) for v in drawn if v is not None]
        if not values:
            return missing(self.name, "garbled", "the recorded draw could not be read")
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return JudgeScore(self.name, math.fsum(values) / len(values), "recorded", error)


def read_table(path: Path, judge: str, prompt: str) -> Table:
    table: Table = {}
    for number, row in json_rows(path):
        scores: dict[str, Any] = row.get("scores", {})
        if "output" in row:
            if judge in scores:
                said = scores[judge]
                table[str(row.get("id", number)), str(row["output"]).strip()] = tuple(said) if isinstance(said, list) else (said,)
            continue
        for response, draws in enumerate(scores.get(prompt, {}).get(judge) or ()):
            table[f"{row.get('subset', '')}/{row.get('id', number)}", str(response)] = tuple(draws)
    return table
