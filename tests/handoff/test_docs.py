"""docs/handoff.md names every field, every check and every filter."""

from __future__ import annotations

import re

from gepa_atlas.handoff.schema import ROWS
from gepa_atlas.handoff.tokens import CHECKS
from tests.handoff.desk import ROOT
from tests.handoff.test_validate import ERRORS, WARNINGS

PAGE = (ROOT / "docs" / "handoff.md").read_text("utf-8")
NAMED = set(re.findall(r"`(\w+)`", PAGE))


def test_every_field_is_named() -> None:
    assert {field for model in ROWS.values() for field in model.model_fields} - NAMED == set()


def test_every_check_is_named_under_its_severity() -> None:
    errors, warnings = PAGE.split("| errors |")[1].split("| warnings |")
    assert set(ERRORS) - set(re.findall(r"`(\w+)`", errors)) == set() == set(WARNINGS) - set(re.findall(r"`(\w+)`", warnings))
    assert set(CHECKS) <= {*ERRORS, *WARNINGS}
