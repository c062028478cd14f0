"""The live planner: a client, and a runtime for one machine."""
