"""Shared by every test: property tests have no clock, because a busy machine is not a failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("atlas", deadline=None)
settings.load_profile("atlas")
