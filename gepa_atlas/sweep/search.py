"""How a sweep walks its space."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gepa_atlas.settings import Settings

MOST = {"matrix": 100_000, "gp": 5_000}  # combinations that a method goes through


class SearchConfig(Settings):
    """How the space is walked. `matrix`: every combination, once. `gp`, `tpe` and `random`: `trials` combinations, or as many as `cells`
    pay for; none is tried twice. gp gives cells one by one to the combinations that promise most, of a space that has an end.

    wilcoxon stops a trial that is worse than the best one, paired by example; hyperband stops the worse ones after few instances.
    """

    method: Literal["matrix", "gp", "tpe", "random"] = "matrix"
    trials: int | None = Field(default=None, ge=1)
    cells: int | None = Field(default=None, ge=1)  # never passed; with a pruner it pays for more trials than it would run to the end
    pruner: Literal["none", "wilcoxon", "hyperband"] = "none"
    startup: int = Field(default=10, ge=1)  # trials spread over the space before TPE learns
    batch: int | None = Field(default=None, ge=1)  # trials that are asked for together; None: jobs, in a matrix four times that
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.method == "matrix" and (self.trials or self.cells or self.pruner != "none"):
            raise ValueError("a matrix runs every combination: remove trials, cells and pruner, or choose method gp, tpe or random")
        if self.method == "gp" and self.pruner != "none":
            raise ValueError("gp goes on with no combination that promises too little: remove pruner, or choose method tpe or random")
        for name, read in (("startup", self.method == "tpe"), ("seed", self.method != "matrix")):
            if name in self.model_fields_set and not read:
                raise ValueError(f"{name} is not read with method {self.method}; remove it")
        if self.method != "matrix" and (self.trials is None) == (self.cells is None):
            raise ValueError(f"method {self.method} needs one of `trials`, how many combinations to try, and `cells`, what they may take")
        return self

    @property
    def single(self) -> str | None:
        """What of it cannot do with several objectives."""
        return "gp" if self.method == "gp" else "pruning" if self.pruner != "none" else None
