"""The decision's fit, from the artifacts of a small fit."""

import json

import pytest

from newfound.evaluation.decision_fit import fit_decision
from newfound.recommend.item_terms import TIMED
from newfound.recommend.nested_logit import RECORD

PARTS = ("dataset", "histories", "clusters", "transitions", "table", "ranker")


@pytest.mark.parametrize("cut", ["user", "global"])
def test_terms_of_time_are_fitted_where_all_pasts_end_together(fitted, settings, tmp_path, cut):
    config = settings.model_copy(update={"split": settings.split.model_copy(update={"cut": cut})})
    measures = fit_decision(*(fitted[part] for part in PARTS), config, tmp_path / "decision")
    record = json.loads((tmp_path / "decision" / RECORD).read_text())
    for coefficients in (record["full"], record["without_planner"]):
        assert {name for name in TIMED if name in coefficients["items"]} == (set(TIMED) if cut == "global" else set())
    assert {name for name in TIMED if f"weight.{name}" in measures} == (set(TIMED) if cut == "global" else set())
