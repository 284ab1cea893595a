"""A pytest plugin: `gepa.optimize` is gepa's own or ours, and what each test did with it is written down.

Environment: COMPAT_SIDE is "gepa" or "atlas", COMPAT_CHECKOUT gepa's repository, COMPAT_OUT the JSON file that is written at the end.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compat import recorded

_rows: dict[str, dict[str, Any]] = {}
_now: list[str] = [""]


def _counted(function: Any) -> Any:
    @functools.wraps(function)
    def optimize(*args: Any, **kwargs: Any) -> Any:
        row = _rows.setdefault(_now[0], {"reached": 0})
        row["reached"] += 1
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            if type(error).__name__ == "OptionRefused":
                row["refused"] = str(error)
            raise

    return optimize


def pytest_configure(config: pytest.Config) -> None:
    sys.modules["datasets"] = recorded.module(Path(os.environ["COMPAT_CHECKOUT"]))  # the hub is never asked, whatever is installed
    import gepa

    from gepa_atlas.compat import gepa as ours

    optimize = _counted(gepa.optimize if os.environ["COMPAT_SIDE"] == "gepa" else ours.optimize)
    for module in (gepa, importlib.import_module("gepa.api")):
        module.optimize = optimize


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Any:
    _now[0] = item.nodeid
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    row = _rows.setdefault(report.nodeid, {"reached": 0})
    if report.when == "call" or report.outcome != "passed":
        row["outcome"] = report.outcome
        row["why"] = "" if report.passed else _why(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _rows[report.nodeid] = {"reached": 0, "outcome": "not collected", "why": str(report.longrepr).strip().splitlines()[-1]}


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(os.environ["COMPAT_OUT"]).write_text(json.dumps(_rows))


def _why(report: pytest.TestReport) -> str:
    lines = [line for line in str(report.longrepr).splitlines() if line.startswith("E  ")]
    return (lines[0] if lines else str(report.longrepr).splitlines()[-1]).removeprefix("E").strip()[:300]
