"""Doubles and exams that ship with the package: a simulated student with a known optimum, scripted ports, conformance suites.

from gepa_atlas.testing.toyworld import ToyWorld, toy_agent, toy_examples
from gepa_atlas.testing.scripted import ScriptedAgent, ScriptedJudge, ScriptedModel, ScriptedProposer
from gepa_atlas.testing.conformance import AgentConformance, ChatModelConformance, JudgeConformance, ProposerConformance
"""
