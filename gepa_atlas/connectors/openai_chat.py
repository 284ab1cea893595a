"""The `openai.chat` provider: a system prompt on any server that speaks OpenAI's chat protocol, the model's keys beside the chat's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gepa_atlas.connectors.chat import ChatParams, build_over
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.llm.openai_compatible import OpenAIParams
from gepa_atlas.ports import Agent


class OpenAIChatParams(OpenAIParams, ChatParams):
    """`model` is the name that the server at `base_url` knows it by."""


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    return build_over("openai.chat", OpenAIChatParams, OpenAIParams, params, surroundings)
