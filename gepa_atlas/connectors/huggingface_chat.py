"""The `huggingface` provider: a system prompt on a model of transformers in this process, the model's keys beside the chat's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gepa_atlas.connectors.chat import ChatParams, build_over
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.llm.huggingface import HuggingFaceParams
from gepa_atlas.ports import Agent


class HuggingFaceChatParams(HuggingFaceParams, ChatParams):
    """`model` is a directory, or a name on the hub."""


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    return build_over("huggingface", HuggingFaceChatParams, HuggingFaceParams, params, surroundings)
