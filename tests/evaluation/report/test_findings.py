"""Findings: what the report says of its descriptions."""

from newfound.evaluation.report.findings import _fidelity


def test_descriptions_that_lead_nowhere_are_marked():
    found = {"description_fidelity@10": 0.73, "description_fidelity.ids@10": 0.1}
    assert _fidelity(found) == [["descriptions find their items' interest among ten", "73%, by ids 10%"]]
    ((_, told),) = _fidelity({**found, "description_fidelity@10": 0.3})
    assert "little language" in told


def test_without_text_nothing_is_said():
    assert _fidelity({}) == []
