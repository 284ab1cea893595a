"""The `openai.responses` provider: instructions on OpenAI's Responses API, the model's keys beside the chat's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import model_validator

from gepa_atlas.connectors.chat import ChatParams, build_over
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.llm.openai_responses import ResponsesParams
from gepa_atlas.ports import Agent


class ResponsesChatParams(ResponsesParams, ChatParams):
    """`system_prompt` is sent as `instructions`; guidance takes its place, or stands where `guidance` says."""

    @model_validator(mode="after")
    def _in_the_api(self) -> Self:
        if self.mode != "chat" or self.stop or self.seed:
            raise ValueError(
                "the Responses API has no completions, stop sequences or seed: leave out mode, stop and seed, or use openai.chat"
            )
        if self.temperature and "temperature" not in self.send:
            raise ValueError("temperature is set but would not be sent: add send: [temperature], for models that take one")
        return self


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    return build_over("openai.responses", ResponsesChatParams, ResponsesParams, params, surroundings)
