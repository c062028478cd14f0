"""Simulated clients with known tastes: the first stone of a closed-loop experiment."""

from newfound.simulation.population import Drift, Population, Response, Shown

__all__ = ["Drift", "Population", "Response", "Shown"]
