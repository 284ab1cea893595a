"""The three hard limits, spelled alike in every command that calls something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gepa_atlas.budget import Limits

MaxUsd = Annotated[float | None, typer.Option("--max-usd", metavar="USD", min=0, help="Hard limit on dollars.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Hard limit on tokens of all models together.")]
MaxMinutes = Annotated[float | None, typer.Option("--max-minutes", metavar="MIN", min=0, help="Hard limit on time.")]


def limits_of(usd: float | None, tokens: int | None, minutes: float | None) -> Limits:
    from gepa_atlas.budget import Limits

    return Limits(tokens=tokens, dollars=usd, seconds=None if minutes is None else minutes * 60)
