"""Agents of the OpenAI Agents SDK that the tests name by import path, and tools of one built from configuration."""

from __future__ import annotations

from agents import Agent, RunContextWrapper
from pydantic import BaseModel


class City(BaseModel):
    name: str
    people: int


def population(city: str) -> str:
    """How many people live in a city."""
    return {"Paris": "2100000"}.get(city, "unknown")


async def dynamic(context: RunContextWrapper[None], agent: Agent[None]) -> str:
    return f"I am {agent.name}."


geographer = Agent(name="geographer", instructions="You know capitals.")
structured = Agent(name="structured", instructions="You know capitals.", output_type=City)
by_function = Agent(name="by function", instructions=dynamic)
not_an_agent = "text"


def made() -> Agent[None]:
    return Agent(name="made", instructions="You were made.")
