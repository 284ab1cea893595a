"""The exams of the four ports. Inherit one, say how to make your implementation, and pytest does the rest.

    class TestMyAgent(AgentConformance):
        def make(self) -> Agent:
            return MyAgent(...)

        def make_failing(self) -> Agent:       # optional: wired to something that is broken
            return MyAgent(url="http://127.0.0.1:9")

No fixtures. An optional `make_*` that is not given skips its tests, visibly; a flag (`deterministic = False`, say) states what
an implementation does not promise.
"""

from gepa_atlas.testing.conformance.agent import AgentConformance
from gepa_atlas.testing.conformance.common import HOSTILE
from gepa_atlas.testing.conformance.judge import ATTACKS, JudgeConformance
from gepa_atlas.testing.conformance.model import ChatModelConformance
from gepa_atlas.testing.conformance.proposer import ProposerConformance, toy_lesson

__all__ = ["ATTACKS", "HOSTILE", "AgentConformance", "ChatModelConformance", "JudgeConformance", "ProposerConformance", "toy_lesson"]
