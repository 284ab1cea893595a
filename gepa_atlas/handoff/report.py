"""What validation says: named checks, each with a severity, a count and the ids it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gepa_atlas.errors import DataError

SCHEMA = "gepa-atlas.validation/1"
_SHOWN = 5  # ids of a check that are named

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Check:
    """One check. `ids` are the first few of `count` findings; `skipped` says why it could not be made."""

    name: str
    severity: Severity
    count: int
    ids: tuple[str, ...]
    said: str  # what is wrong and what to do; of a check that passed, what was looked at
    figures: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""

    @property
    def status(self) -> Literal["pass", "fail", "skipped"]:
        return "skipped" if self.skipped else "fail" if self.count else "pass"

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"name": self.name, "severity": self.severity, "status": self.status, "count": self.count}
        row |= {"ids": list(self.ids), "said": self.said}
        return row | ({"figures": dict(self.figures)} if self.figures else {}) | ({"skipped": self.skipped} if self.skipped else {})


@dataclass
class Report:
    """All checks in the order in which they were made."""

    checks: list[Check] = field(default_factory=list)

    def add(self, name: str, severity: Severity, found: list[str], said: str, figures: Mapping[str, Any] | None = None) -> None:
        """A check that found something for each of `found` (ids, one a finding)."""
        self.checks.append(Check(name, severity, len(found), tuple(dict.fromkeys(found))[:_SHOWN], said, figures or {}))

    def skip(self, name: str, severity: Severity, why: str) -> None:
        self.checks.append(Check(name, severity, 0, (), "", {}, why))

    def failed(self, severity: Severity) -> list[Check]:
        return [check for check in self.checks if check.severity == severity and check.status == "fail"]

    def refuse(self) -> None:
        """Raise DataError, one line, for the first error."""
        errors = self.failed("error")
        if errors:
            first, more = errors[0], len(errors) - 1
            ids = ", ".join(first.ids) + (", ..." if first.count > len(first.ids) else "")
            also = f" ({more} more check{'s' if more > 1 else ''} failed: see validation.json)" if more else ""
            raise DataError(f"validate: {first.name}: {first.count} found ({ids}): {first.said}{also}")

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "errors": len(self.failed("error")),
            "warnings": len(self.failed("warning")),
            "checks": [check.to_json() for check in self.checks],
        }
