"""The `litellm` provider: a system prompt on any of the vendors that litellm knows, the model's keys beside the chat's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gepa_atlas.connectors.chat import ChatParams, build_over
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.llm.litellm_model import LiteLLMParams
from gepa_atlas.ports import Agent


class LiteLLMChatParams(LiteLLMParams, ChatParams):
    """`model` is litellm's name of it: `vendor/model`."""


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    return build_over("litellm", LiteLLMChatParams, LiteLLMParams, params, surroundings)
