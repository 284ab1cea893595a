"""revise: a language model writes the components afresh after reading lessons: the way out of a wording that edits cannot leave."""

from __future__ import annotations

from typing import Literal

from gepa_atlas.ports import ChatModel
from gepa_atlas.propose.reflect import Reflect, ReflectOptions


class ReviseOptions(ReflectOptions):
    form: Literal["edits", "rewrite"] = "rewrite"
    minibatch: int = 6
    temperature: float = 0.9


class Revise(Reflect):
    name = "revise"

    def __init__(self, model: ChatModel, options: ReviseOptions | None = None) -> None:
        super().__init__(model, options or ReviseOptions())
