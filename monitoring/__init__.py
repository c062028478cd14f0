"""Monitoring: the collector of events, reports, retraining decisions, and people's data."""
