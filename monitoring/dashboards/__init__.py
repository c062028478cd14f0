"""Grafana dashboards, written in typed code; the JSON beside it is what it makes, and a test holds the two equal."""
