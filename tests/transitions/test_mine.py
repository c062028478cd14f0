"""Novel transitions by hand and against a naive reference; what is withheld; the balanced set."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newfound import schema
from newfound.config import TransitionsConfig
from newfound.datasets import Dataset, blocks
from newfound.errors import DataError
from newfound.features.user_history import check_histories
from newfound.transitions.mine import interest_events, mine_transitions, novel_transitions
from tests.transitions.conftest import LETTERS, START, Walk, write_clusters, write_histories


def novel(histories: Path, clusters: Path, size: int = 2) -> list[tuple[str, str, str, float, bool]]:
    """User, context, next, signed engagement and positive, in order."""
    table = novel_transitions(interest_events(histories, clusters), size).to_pyarrow()
    rows = sorted(table.to_pylist(), key=lambda row: (row["user_id"], row["position"]))
    return [
        (row["user_id"], "".join(row["context"]), row["next"], round(row["engagement"], 4), row["positive"])
        for row in rows
    ]


def test_walk_by_hand(letters: Path, tmp_path: Path) -> None:
    walk: Walk = [
        ("A0", 1.0),
        ("B0", 0.2),
        ("A1", 1.0),
        ("C0", 1.0),
        ("B1", 1.0),
        ("D0", 0.0),
        ("A2", 1.0),
        ("E0", 0.75),
    ]
    histories = write_histories(tmp_path / "histories.parquet", {"u": walk})
    assert novel(histories, letters) == [
        # A has no context, B and C have only A before them: B was disliked, but it is seen, so B1 opens nothing.
        ("u", "CB", "D", -1.0, False),
        ("u", "BA", "E", 0.5, True),  # A came back last; D was disliked and is no interest
    ]
    assert novel(histories, letters, 1) == [
        ("u", "A", "B", -0.6, False),
        ("u", "A", "C", 1.0, True),
        ("u", "B", "D", -1.0, False),
        ("u", "A", "E", 0.5, True),
    ]
    assert novel(histories, letters, 3) == [("u", "ACB", "D", -1.0, False), ("u", "CBA", "E", 0.5, True)]


def test_events_of_one_moment_keep_their_order(letters: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["u"],
            "item_ids": [["B0", "A0", "C0", "D0"]],
            "times": [[START] * 4],
            "engagements": [[1.0] * 4],
            "positives": [[True] * 4],
        }
    )
    check_histories(frame, tmp_path / "histories.parquet")
    found = novel(tmp_path / "histories.parquet", letters)
    assert [(context, label) for _, context, label, _, _ in found] == [("BA", "C"), ("AC", "D")]


def test_interest_events(letters: Path, tmp_path: Path) -> None:
    walk: Walk = [("A0", 1.0), ("stranger", 1.0), ("B0", 0.0), ("A1", 0.5), ("B1", 1.0)]
    histories = write_histories(tmp_path / "histories.parquet", {"u": walk, "v": [("C2", 1.0)]})
    events = interest_events(histories, letters).order_by(["user_id", "position"]).to_pyarrow().to_pylist()
    assert [(event["user_id"], event["position"], event["item_id"], event["cluster"]) for event in events] == [
        ("u", 0, "A0", "A"),
        ("u", 2, "B0", "B"),  # an item without a cluster leaves a gap
        ("u", 3, "A1", "A"),
        ("u", 4, "B1", "B"),
        ("v", 0, "C2", "C"),
    ]
    assert [event["first"] for event in events] == [True, True, False, False, True]
    assert [event["positive"] for event in events] == [True, False, True, True, True]
    assert events[2]["timestamp"] == (START + 3 * 60_000) * 1000


def naive(walk: Walk, size: int) -> list[tuple[str, str, float, bool]]:
    """The definition, read aloud."""
    found = []
    for at, (item, engagement) in enumerate(walk):
        before = walk[:at]
        if item[0] in {other[0] for other, _ in before}:
            continue
        recent: list[str] = []
        for other, liking in reversed(before):
            if liking >= 0.5 and other[0] not in recent:
                recent.append(other[0])
        if len(recent) >= size:
            context = "".join(reversed(recent[:size]))
            found.append((context, item[0], round(2 * engagement - 1, 4), engagement >= 0.5))
    return found


steps = st.tuples(
    st.sampled_from([item for items in LETTERS.values() for item in items]), st.sampled_from([0.0, 0.25, 0.5, 1.0])
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(steps, min_size=1, max_size=20), min_size=1, max_size=12), st.integers(1, 3))
def test_against_a_naive_reference(letters: Path, tmp_path: Path, walks: list[Walk], size: int) -> None:
    people = {f"u{row:02}": walk for row, walk in enumerate(walks)}
    histories = write_histories(tmp_path / "histories.parquet", people)
    expected = [(user, *row) for user, walk in people.items() for row in naive(walk, size)]
    assert novel(histories, letters, size) == expected


def samples(out: Path) -> dict[tuple[str, str], float]:
    rows = pq.read_table(out / "balanced.parquet").to_pylist()
    return {("".join(row["context"]), row["next"]): row["weight"] for row in rows}


def test_files_keep_their_contract(mined: Callable[..., tuple[Path, dict[str, float]]]) -> None:
    out, _ = mined(held_out_pairs=0.5)
    for name, contract in (
        ("transitions", schema.TRANSITIONS),
        ("balanced", schema.BALANCED),
        ("held_out", schema.WITHHELD),
    ):
        assert pq.read_schema(out / f"{name}.parquet").equals(contract)
    table = pq.read_table(out / "transitions.parquet").to_pandas()
    assert table["user_id"].is_monotonic_increasing
    assert (table.groupby("user_id")["at"].diff().dropna().dt.total_seconds() > 0).all()
    assert set(zip(table["user_id"].str[0], table["split"], strict=True)) == {
        ("t", "train"), ("v", "validation"), ("x", "test"),
    }  # fmt: skip
    record = json.loads((out / "transitions.json").read_text())
    assert record["config"]["held_out_pairs"] == 0.5 and record["clusters_digest"]


def test_balanced_set_by_hand(mined: Callable[..., tuple[Path, dict[str, float]]]) -> None:
    out, measures = mined(held_out_pairs=0.0)
    assert samples(out) == {
        ("AB", "C"): 2.0,  # t1, t2; t5 disliked it, and v1 is nobody to learn from
        ("AB", "D"): 2.0,  # t3, t5: a disliked cluster does not enter the context
        ("BC", "D"): 1.0,
        ("BD", "C"): 1.0,
        ("BA", "C"): 1.0,
        ("AC", "D"): 1.0,
    }
    assert measures["transitions"] == 13 and measures["positives"] == 11
    assert measures["training_transitions"] == 10 and measures["held_out_contexts"] == 0
    assert measures["natural_samples"] == 8 and measures["balanced_samples"] == 6
    assert measures["balanced_labels"] == 2 and measures["balanced_label_coverage"] == 2 / 5
    assert measures["balanced_label_entropy"] == pytest.approx(math.log(2) / math.log(5))
    # counts 0, 0, 0, 3, 3: sum over all ordered pairs |x - y| = 36, over 2 * 5^2 * mean 1.2
    assert measures["balanced_label_gini"] == pytest.approx(36 / 60)


def test_everybody_for_the_refit(mined: Callable[..., tuple[Path, dict[str, float]]]) -> None:
    out, _ = mined(held_out_pairs=0.0, learn_from="all")
    found = samples(out)
    assert found[("AB", "E")] == 1.0 and found[("DE", "C")] == 1.0 and found[("BE", "D")] == 1.0
    assert len(found) == 9


def test_labels_are_capped_the_most_frequent_first(mined: Callable[..., tuple[Path, dict[str, float]]]) -> None:
    out, measures = mined(held_out_pairs=0.0, per_label=1)
    assert samples(out) == {("AB", "C"): 2.0, ("AB", "D"): 2.0}
    assert measures["balanced_samples"] == 2
    out, _ = mined(held_out_pairs=0.0, per_label=2)
    assert Counter(label for _, label in samples(out)) == {"C": 2, "D": 2}


def test_withheld_pairs_stay_out_in_both_orders(mined: Callable[..., tuple[Path, dict[str, float]]]) -> None:
    seen = set()
    for seed in range(4):
        out, measures = mined(seed=seed, held_out_pairs=0.5)
        held = pq.read_table(out / "held_out.parquet").to_pylist()
        contexts = {"".join(row["context"]) for row in held}
        assert len(contexts) == measures["held_out_contexts"] == len(held)
        assert contexts == {context[::-1] for context in contexts}
        assert not contexts & {context for context, _ in samples(out)}
        table = pq.read_table(out / "transitions.parquet").to_pandas()
        flagged = {"".join(context) for context in table.loc[table["held_out"], "context"]}
        assert flagged <= contexts
        assert not any("".join(context) in contexts for context in table.loc[~table["held_out"], "context"])
        assert measures["held_out_transitions"] == table["held_out"].sum()
        # {A, B}: 6 transitions of training users, {B, C}: 2, {B, D} and {A, C}: 1 each
        strata = {"".join(sorted(row["context"])): row["stratum"] for row in held}
        assert strata.items() <= {"AB": 2, "BC": 1, "BD": 0, "AC": 0}.items()
        assert sum(stratum == 0 for stratum in strata.values()) == 1, "half of the two pairs that were seen once"
        counts = {"".join(row["context"]): row["count"] for row in held}
        for context, count in counts.items():
            assert count == {"AB": 5, "BA": 1, "BC": 2, "BD": 1, "AC": 1}.get(context, 0)
        seen.add(frozenset(strata))
    assert len(seen) > 1, "the seed decides"


def test_nothing_to_learn_from(mined: Callable[..., tuple[Path, dict[str, float]]]) -> None:
    with pytest.raises(DataError, match="no positive novel transition"):
        mined(held_out_pairs=1.0)
    assert not list(Path(mined(held_out_pairs=0.0)[0]).parent.glob("*1.0*"))


def test_real_slice(movielens: Path, movielens_histories: Path, tmp_path: Path) -> None:
    items = Dataset(movielens).frame("items")
    genre = items["categories"].map(lambda names: names[0] if len(names) else "none")
    clusters = write_clusters(tmp_path / "clusters", items.groupby(genre)["item_id"].apply(list).to_dict())
    outs = [tmp_path / "one", tmp_path / "two"]
    measures = [mine_transitions(movielens_histories, movielens, clusters, TransitionsConfig(), 7, out) for out in outs]
    assert measures[0] == measures[1]
    for name in ("transitions.parquet", "balanced.parquet", "held_out.parquet", "transitions.json"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), "same seed, same files"
    table = pq.read_table(outs[0] / "transitions.parquet").to_pandas()
    cuts = Dataset(movielens).frame("users").set_index("user_id")
    assert (table["at"] < table["user_id"].map(cuts["cut"])).all(), "nothing from after the cut"
    assert (table["split"] == table["user_id"].map(cuts["group"])).all()
    assert not table.duplicated(["user_id", "next"]).any(), "a cluster is novel once"
    assert all(
        len(set(context)) == 2 and label not in context
        for context, label in zip(table["context"], table["next"], strict=True)
    )
    balanced = pq.read_table(outs[0] / "balanced.parquet").to_pandas()
    assert balanced["next"].value_counts().max() <= 40
    train = table[(table["split"] == "train") & table["positive"] & ~table["held_out"]]
    assert set(map(tuple, balanced["context"])) <= set(map(tuple, train["context"]))


def test_mined_in_blocks_of_users_is_what_is_mined_at_once(mined, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole = mined(2)
    tables = {file.name: pq.read_table(file) for file in out.glob("*.parquet")}
    monkeypatch.setattr(blocks, "EVENTS", 6)
    again, parts = mined(2)
    assert (again, parts) == (out, whole) and len(tables) == 3
    assert pq.ParquetFile(out / "transitions.parquet").num_row_groups > 1
    assert all(pq.read_table(out / name).equals(table) for name, table in tables.items())
