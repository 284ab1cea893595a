"""An agent of the OpenAI Agents SDK: it hands units over to a colleague and reads order numbers itself.

Which model it asks, and where, is said by the configuration that names it (docs/providers.md, openai.sdk). Needs the extra [agents].
"""

from __future__ import annotations

from agents import Agent

units = Agent(name="units", instructions="You write measurements with the symbol of their unit.", handoff_description="writes measurements")
orders = Agent(name="orders", instructions="You read messages of customers and answer with the order number.")
desk = Agent(name="desk", instructions="You read messages of customers.", handoffs=[units, orders])
