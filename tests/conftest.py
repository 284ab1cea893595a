"""Fixtures of the whole suite: one embedded model, in reproducible mode, for a test session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from gepa_atlas.errors import MissingExtra
from gepa_atlas.llm.local import LocalModel, LocalParams, stop

# A property test has no clock: a busy machine is not a failure.
settings.register_profile("atlas", deadline=None)
settings.load_profile("atlas")


@pytest.fixture(scope="session")
def local_model() -> Iterator[LocalModel]:
    """The embedded model. Its servers start with the first call and are stopped when the session ends."""
    try:
        model = LocalModel(LocalParams())
    except MissingExtra as missing:
        pytest.skip(str(missing))
    yield model
    stop()
