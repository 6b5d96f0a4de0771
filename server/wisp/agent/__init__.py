"""What stands on a node: the agent, and the lease that says it is there."""
from wisp.agent.agent import Agent
from wisp.agent.presence import Presence

__all__ = ["Agent", "Presence"]
