"""The embedded model sits the exams of the ports it stands behind."""

from __future__ import annotations

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import Agent, ChatModel
from gepa_atlas.testing.conformance import AgentConformance, ChatModelConformance

pytestmark = pytest.mark.local


class TestLocalModel(ChatModelConformance):
    reports_logprobs = True

    def make(self) -> ChatModel:
        return build_model("local")


class TestLocalChatAgent(AgentConformance):
    def make(self) -> Agent:
        params = {"model": "local", "max_tokens": 8}
        return build_agent(AgentSpec(provider="chat", params=params), build_model=build_model)
