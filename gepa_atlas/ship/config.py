"""The `gate:` and `package:` sections of a training configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gepa_atlas.settings import Settings


class GateConfig(Settings):
    """What must hold before anything goes live. Every criterion must pass; one that cannot be shown makes the verdict inconclusive."""

    bootstrap: int = Field(default=10_000, ge=100)  # resamples of tasks
    alpha: float = Field(default=0.05, gt=0, lt=0.5)  # two-sided level of every interval
    min_delta_lcb: float = Field(default=0.0, ge=-1, le=1)  # lower bound of the paired delta against the student alone
    min_ndr: float = Field(default=0.97, ge=0, le=1)  # share of tasks that did not degrade
    min_ndr_lcb: float = Field(default=0.95, ge=0, le=1)  # its Wilson lower bound
    ndr_tolerance: float = Field(default=0.02, ge=0, le=1)  # a loss of reward up to this is no degradation
    # Cells whose paired gain must have a lower bound > 0; and what is promoted, which it may not be worse than by promoted_margin.
    must_beat: tuple[Literal["base+evolved", "base+seed", "promoted"], ...] = ("base+evolved", "promoted")
    promoted_margin: float = Field(default=0.02, ge=0, le=1)
    max_regression: float = Field(default=0.01, ge=0, le=1)  # mean reward the regression suite may lose
    max_tokens_ratio: float | None = Field(default=1.5, gt=0)  # guidance tokens over those of the base model; None: not a criterion
    min_format_valid: float | None = Field(default=None, ge=0, le=1)  # None: not below the base model
    min_refusal: float | None = Field(default=None, ge=0, le=1)  # on under-specified questions; None: reported only
    judge_agreement_min: float = Field(default=0.8, ge=0, le=1)  # tasks where the held-out judge agrees in sign, where there is one
    max_adapter_mb: float = Field(default=4096.0, gt=0, allow_inf_nan=False)  # size of the files that ship
    max_unscored: float = Field(default=0.02, ge=0, le=1)  # above it the evaluation itself is inconclusive
    evaluators: tuple[str, ...] = ()  # names in the entry point group gepa_atlas.evaluators
    signing_key_env: str | None = None  # environment variable with the key of decision.json's HMAC; None: integrity only


class PackageConfig(Settings):
    """The bundle and where it goes."""

    operation: str = Field(default="teacher", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")  # what the bundle is promoted for
    registry: str = "registry"  # relative to the current directory
    promote: bool = False  # the stage package ends with `promote`; it is reached when the gate has passed
    license: str | None = None  # of the model card
