"""An agent in the place of a model: a teacher that is a service, a command or an assistant with instructions of its own."""

from __future__ import annotations

from gepa_atlas.errors import BadRequest
from gepa_atlas.ports import Agent, ChatRequest, Completion, Endpoint
from gepa_atlas.types import Question, StopReason, Task


class AgentAsModel:
    """Sends the text of a request as the question. How long and how warm the answer is, is the agent's own affair."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    @property
    def identity(self) -> str:
        return f"agent:{self._agent.identity}"

    @property
    def endpoint(self) -> Endpoint:
        return self._agent.endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        """Raises CallError; BadRequest for what only a model can do. A JSON schema is asked for in words: nobody holds the agent to it,
        and who asked reads the answer with care anyway."""
        if request.top_logprobs:
            raise BadRequest("an agent in the place of a model has no token probabilities; configure a model where they are needed")
        text = request.prompt if request.prompt is not None else "\n\n".join(m.content for m in request.messages)
        if request.json_schema is not None:
            text += f"\n\nAnswer with one JSON document of this JSON schema:\n{request.json_schema}"
        attempt = await self._agent.run(Task(Question("", text), sample=request.sample))
        return Completion(attempt.output or "", attempt.usage, "length" if attempt.stop is StopReason.LENGTH else "stop")
