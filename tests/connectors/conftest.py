from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.connectors.faults import HOSTILE, Server, misbehaving


@pytest.fixture
def server() -> Iterator[Server]:
    with misbehaving() as told:
        yield told


@pytest.fixture(params=sorted(HOSTILE))
def hostile(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]
