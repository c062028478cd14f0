"""The planner, asked live: a client, and a runtime for one machine."""
