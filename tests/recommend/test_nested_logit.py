"""The decision's record: kept as it is; refused where it is none, or of other clusters, or names an unknown term."""

from __future__ import annotations

from pathlib import Path

import pytest

from newfound.errors import DataError, VocabularyError
from newfound.recommend.nested_logit import RECORD, Coefficients, DecisionModel


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    model = DecisionModel(clusters_digest="d", full=Coefficients(items={"ranker": 0.5}, clusters={"planner": 0.2}))
    (tmp_path / RECORD).write_text(model.model_dump_json(), encoding="utf-8")
    assert DecisionModel.load(tmp_path, "d") == model
    with pytest.raises(VocabularyError, match="fitted on clusters d; expected e"):
        DecisionModel.load(tmp_path, "e")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": 2}', "format 2"),
        ('{"full": {"items": {"fame": 1.0}}}', "term 'fame'"),
        ('{"full": {"clusters": {"ranker": 1.0}}}', "term 'ranker'"),
        ('{"without_planner": {"dissimilarity": NaN}}', "cannot be read|not finite"),
    ],
)
def test_what_is_no_record_is_refused_by_its_file(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / RECORD).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"decision\.json.*({told})"):
        DecisionModel.load(tmp_path, "")
