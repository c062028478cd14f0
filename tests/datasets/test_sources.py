"""Every layout that newfound knows by name, and files of one's own."""

from __future__ import annotations

import gzip
import importlib.metadata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from newfound.config import DataConfig, SplitConfig
from newfound.datasets import Dataset, load_interactions
from newfound.errors import DataError

MOVIETWEETINGS = Path(__file__).parents[3] / "shared" / "data" / "movietweetings-100k"
START = 874_965_758


def load(out: Path, **settings: Any) -> Dataset:
    load_interactions(DataConfig(**{"min_user_events": 1, **settings}), SplitConfig(), 1, out)
    return Dataset(out)


def titles(data: Dataset) -> dict[str, tuple[str, str | None, list[str]]]:
    return {
        item: (title, text, list(names)) for item, title, text, names in data.frame("items").itertuples(index=False)
    }


def check_ratings(data: Dataset, low: float, high: float) -> None:
    """Users 1 and 2 rated items 1 and 2 low, 4, 4, high, one second after the other."""
    events = data.frame("interactions")
    assert events[["user_id", "item_id"]].to_numpy().tolist() == [["1", "1"], ["1", "2"], ["2", "1"], ["2", "2"]]
    middle = (4 - low) / (high - low)
    np.testing.assert_allclose(events["engagement"], [0, middle, middle, 1], rtol=1e-6)
    assert events["positive"].tolist() == [False, True, True, True]
    assert [time.timestamp() for time in events["timestamp"]] == [START, START + 1, START + 2, START + 3]
    assert events["position"].tolist() == [0, 1, 0, 1]


def rows(low: float, high: float, separator: str) -> str:
    events = [(1, 1, low), (1, 2, 4), (2, 1, 4), (2, 2, high)]
    return "".join(separator.join(map(str, [*event, START + at])) + "\n" for at, event in enumerate(events))


def test_movielens_100k_layout(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text(rows(1, 5, "\t"))
    none, action, drama = ["0"] * 19, ["0"] * 19, ["0"] * 19
    none[0], action[1], drama[8], drama[14] = "1", "1", "1", "1"
    lines = [
        "|".join(["1", 'Amélie "Poulain" (2001)', "01-Jan-2001", "", "http://x", *drama]),
        "|".join(["2", "unknown", "", "", "", *none]),
        "|".join(["3", "Never rated (1999)", "", "", "", *action]),
    ]
    (tmp_path / "u.item").write_bytes("\n".join(lines).encode("latin-1"))
    data = load(tmp_path / "out", loader="movielens", folder=str(tmp_path))
    check_ratings(data, 1, 5)
    amelie = 'Amélie "Poulain" (2001)'
    assert titles(data) == {
        "1": (amelie, f"{amelie}. Drama, Romance", ["Drama", "Romance"]),
        "2": ("unknown", "unknown", []),
    }
    assert data.info["engagement"]["positive"] == "engagement >= 0.75 (rating >= 4)"


def test_movielens_1m_layout(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(rows(1, 5, "::"))
    films = "1::Les Misérables: part 2 (1995)::Drama|Musical\n2::Jumanji (1995)::Adventure|Children's|Fantasy\n"
    (tmp_path / "movies.dat").write_bytes(films.encode("latin-1"))
    data = load(tmp_path / "out", loader="movielens", folder=str(tmp_path))
    check_ratings(data, 1, 5)
    title = "Les Misérables: part 2 (1995)"
    assert titles(data)["1"] == (title, f"{title}. Drama, Musical", ["Drama", "Musical"])


def test_movielens_latest_layout(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows(0.5, 5, ","))
    films = 'movieId,title,genres\n1,"American President, The (1995)",Comedy|Drama\n2,Heat (1995),(no genres listed)\n'
    (tmp_path / "movies.csv").write_text(films, encoding="utf-8")
    data = load(tmp_path / "out", loader="movielens", folder=str(tmp_path))
    check_ratings(data, 0.5, 5)
    title = "American President, The (1995)"
    assert titles(data) == {
        "1": (title, f"{title}. Comedy, Drama", ["Comedy", "Drama"]),
        "2": ("Heat (1995)", "Heat (1995)", []),
    }


def test_movietweetings_layout(tmp_path: Path) -> None:
    ratings = [(1, "0002844", 0), (1, "0004936", 7), (2, "0002844", 8), (2, "0004936", 10)]
    lines = "".join(f"{user}::{item}::{rating}::{START + at}\n" for at, (user, item, rating) in enumerate(ratings))
    (tmp_path / "ratings.dat").write_text(lines)
    films = "0002844::Fantômas (1913)::Crime|Drama\n0004936::The Bank (1915)::\n"
    (tmp_path / "movies.dat").write_text(films, encoding="utf-8")
    data = load(tmp_path / "out", loader="movietweetings", folder=str(tmp_path))
    events = data.frame("interactions")
    assert events["item_id"].tolist() == ["0002844", "0004936"] * 2
    np.testing.assert_allclose(events["engagement"], [0, 0.7, 0.8, 1.0])
    assert events["positive"].tolist() == [False, False, True, True]
    assert titles(data)["0002844"] == ("Fantômas (1913)", "Fantômas (1913). Crime, Drama", ["Crime", "Drama"])
    assert titles(data)["0004936"] == ("The Bank (1915)", "The Bank (1915)", [])


def test_bad_row_without_a_header_is_numbered(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(rows(1, 5, "::").replace("2::1::4", "2::1::9") + "1::2\n")
    (tmp_path / "movies.dat").write_text("1::A::Drama\n2::B::Drama\n")
    settings = DataConfig(loader="movielens", folder=str(tmp_path), min_user_events=1)
    with pytest.raises(DataError, match=r"ratings\.dat, row 5: has another number of fields"):
        load_interactions(settings, SplitConfig(), 1, tmp_path / "out")
    with pytest.raises(DataError, match=r"column 'rating', row 3: bad rating '9' \(the first of 2 bad rows of 5"):
        load_interactions(settings.model_copy(update={"bad_rows": 0.2}), SplitConfig(), 1, tmp_path / "out")


@pytest.mark.parametrize("loader", ["movielens", "movietweetings"])
def test_folder_without_the_files(tmp_path: Path, loader: str) -> None:
    with pytest.raises(DataError, match=r"ratings\.dat"):
        load(tmp_path / "out", loader=loader, folder=str(tmp_path))
    (tmp_path / "ratings.dat").write_text(rows(1, 5, "::"))
    with pytest.raises(DataError, match=r"movies\.dat: no such file"):
        load(tmp_path / "out", loader=loader, folder=str(tmp_path))


def test_movielens_100k_from_the_wheel(tmp_path: Path) -> None:
    data = load(tmp_path / "out", loader="movielens-100k")
    counts = data.info["counts"]
    assert (counts["users"], counts["items"], counts["interactions"], counts["positives"]) == (
        943,
        1682,
        100_000,
        55_375,
    )
    assert counts["users_with_future"] == 943 and abs(counts["future"] / 100_000 - 0.2) < 0.005
    genres = ["Animation", "Children's", "Comedy"]
    assert titles(data)["1"] == ("Toy Story (1995)", "Toy Story (1995). Animation, Children's, Comedy", genres)
    assert titles(data)["267"] == ("unkonwn", "unkonwn", [])  # as it stands there
    assert [file["file"] for file in data.info["sources"]] == ["ml-100k.inter", "ml-100k.item"]


def test_another_file_in_the_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.distribution("recbole")

    class Distribution:
        @staticmethod
        def locate_file(path: str) -> Path:
            return tmp_path / path

    folder = tmp_path / "recbole/dataset_example/ml-100k"
    folder.mkdir(parents=True)
    for name in ("inter", "item", "user"):
        content = Path(str(real.locate_file(f"recbole/dataset_example/ml-100k/ml-100k.{name}"))).read_bytes()
        (folder / f"ml-100k.{name}").write_bytes(content[:-1] if name == "item" else content)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Distribution)
    with pytest.raises(DataError, match=r"ml-100k\.item: sha256 is .* expected 51d7cdf777ce"):
        load(tmp_path / "out", loader="movielens-100k")


def test_wheel_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(DataError, match="recbole==1.2.1"):
        load(tmp_path / "out", loader="movielens-100k")


@pytest.mark.skipif(not MOVIETWEETINGS.is_dir(), reason=f"{MOVIETWEETINGS} is absent")
def test_movietweetings_for_real(tmp_path: Path) -> None:
    config = DataConfig(loader="movietweetings", folder=str(MOVIETWEETINGS), min_item_events=5)
    load_interactions(config, SplitConfig(cut="global"), 1, tmp_path / "out")
    data = Dataset(tmp_path / "out")
    counts = data.info["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (4_333, 2_414, 68_055)
    assert data.frame("users")["cut"].nunique() == 1
    assert abs(counts["future"] / 68_055 - 0.2) < 0.001


class Files:
    """Own files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(
        self, events: pd.DataFrame, items: pd.DataFrame | None = None, suffix: str = "parquet", **more: Any
    ) -> Dataset:
        settings: dict[str, Any] = {"loader": "files", **more}
        for name, frame in (("interactions", events), ("items", items)):
            if frame is not None:
                settings[name] = str(self.folder / f"{name}.{suffix}")
                frame.to_parquet(settings[name]) if suffix == "parquet" else frame.to_csv(settings[name], index=False)
        return load(self.folder / "out", **settings)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def events_at(times: Any, **more: Any) -> pd.DataFrame:
    count = len(times)
    return pd.DataFrame(
        {"user_id": ["a"] * count, "item_id": [f"i{at}" for at in range(count)], "timestamp": times, **more}
    )


MOMENTS = [datetime(2024, 2, 29, 23, 59, 59, 123456, UTC), datetime(2024, 3, 1, tzinfo=UTC)]
NAIVE = [moment.replace(tzinfo=None) for moment in MOMENTS]


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        (MOMENTS, "datetime"),
        (NAIVE, "datetime"),
        (pd.Series(NAIVE).astype("datetime64[ns]"), "datetime"),
        (pd.Series(MOMENTS).dt.tz_convert("Asia/Tokyo"), "datetime"),
        ([moment.isoformat() for moment in MOMENTS], "datetime"),
        (["2024-03-01T08:59:59.123456+09:00", "2024-03-01 00:00:00Z"], "datetime"),
        ([1_709_251_199.0, 1_709_251_200.0], "seconds"),
        ([1_709_251_199, 1_709_251_200], "seconds"),
        (["1709251199", "1709251200"], "seconds"),
        ([1_709_251_199_123, 1_709_251_200_000], "milliseconds"),
        (np.array([1_709_251_199_123, 1_709_251_200_000], dtype="uint64"), "milliseconds"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_times(files: Files, times: Any, kind: str, suffix: str) -> None:
    data = files.load(events_at(times), suffix=suffix)
    assert data.info["time"] == kind
    microsecond = {"datetime": 123456, "seconds": 0, "milliseconds": 123000}[kind]
    found = data.frame("interactions")["timestamp"].tolist()
    assert found == [MOMENTS[0].replace(microsecond=microsecond), MOMENTS[1]]


def test_dates(files: Files) -> None:
    data = files.load(events_at([datetime(2024, 3, 1).date(), datetime(2024, 3, 2).date()]))
    assert data.frame("interactions")["timestamp"].tolist() == [pd.Timestamp(f"2024-03-0{d}", tz="UTC") for d in (1, 2)]


def test_ordinals_become_seconds_since_the_epoch(files: Files) -> None:
    data = files.load(events_at([3, 1, 2]))
    assert data.info["time"] == "ordinal"
    events = data.frame("interactions")
    assert events["item_id"].tolist() == ["i1", "i2", "i0"]
    assert [time.timestamp() for time in events["timestamp"]] == [1, 2, 3]


def test_configured_time_beats_the_guess(files: Files) -> None:
    assert files.load(events_at([200_000_000, 300_000_000]), time="ordinal").info["time"] == "ordinal"


def test_ties_keep_the_order_of_the_source(files: Files) -> None:
    data = files.load(events_at([2_000_000_000, 1_900_000_000, 1_900_000_000, 2_000_000_000]))
    assert data.frame("interactions")["item_id"].tolist() == ["i1", "i2", "i0", "i3"]


def test_ids_alone(files: Files) -> None:
    data = files.load(events_at([1, 2]))
    events = data.frame("interactions")
    assert events["engagement"].tolist() == [1.0, 1.0] and events["positive"].all()
    assert titles(data) == {"i0": ("i0", None, []), "i1": ("i1", None, [])}
    assert data.info["counts"]["items_with_text"] == 0
    assert data.info["engagement"]["engagement"] == "1 for every interaction"


def test_integer_ids_become_text(files: Files) -> None:
    data = files.load(events_at([1, 2], user_id=[7, 7], item_id=[1, 2]))
    assert data.frame("interactions")[["user_id", "item_id"]].to_numpy().tolist() == [["7", "1"], ["7", "2"]]


def test_engagement_and_positive_as_given(files: Files) -> None:
    data = files.load(events_at([1, 2, 3], engagement=[0.2, 0.9, 0.4], positive=[True, False, True]))
    events = data.frame("interactions")
    np.testing.assert_allclose(events["engagement"], [0.2, 0.9, 0.4])
    assert events["positive"].tolist() == [True, False, True]
    assert data.info["engagement"] == {"engagement": "as given", "positive": "as given"}


def test_positive_from_engagement(files: Files) -> None:
    events = events_at([1, 2, 3], engagement=[0.49, 0.5, 0.9])
    assert files.load(events).frame("interactions")["positive"].tolist() == [False, True, True]
    assert files.load(events, positive_at=0.9).frame("interactions")["positive"].tolist() == [False, False, True]


@pytest.mark.parametrize("values", [[True, False], [1, 0], ["yes", "No"], ["TRUE", "f"]])
def test_engagement_from_positive(files: Files, values: list[object]) -> None:
    events = files.load(events_at([1, 2], positive=values), suffix="csv").frame("interactions")
    assert events["positive"].tolist() == [True, False] and events["engagement"].tolist() == [1.0, 0.0]


def test_ratings_by_scale(files: Files) -> None:
    data = files.load(events_at([1, 2], rating=[2, 10]), rating_scale=(0, 10), positive_at=0.6)
    np.testing.assert_allclose(data.frame("interactions")["engagement"], [0.2, 1.0])
    assert data.info["engagement"]["positive"] == "engagement >= 0.6 (rating >= 6)"


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_own_items(files: Files, suffix: str) -> None:
    categories: list[object] = [["x", " y "], None, []] if suffix == "parquet" else ["x| y ", None, "|"]
    items = pd.DataFrame(
        {
            "item_id": ["i0", "i1", "i2"],
            "title": ["Zero", " ", None],
            "text": [None, "About one", None],
            "categories": categories,
        }
    )
    data = files.load(events_at([1, 2, 3]), items, suffix=suffix)
    assert titles(data) == {
        "i0": ("Zero", "Zero. x, y", ["x", "y"]),
        "i1": ("i1", "About one", []),
        "i2": ("i2", None, []),
    }


def test_items_without_text_or_categories(files: Files) -> None:
    data = files.load(events_at([1, 2]), pd.DataFrame({"item_id": ["i0", "i1"], "title": ["Zero", "One"]}))
    assert titles(data) == {"i0": ("Zero", "Zero", []), "i1": ("One", "One", [])}


def test_cold_items(files: Files) -> None:
    items = pd.DataFrame({"item_id": ["i0", "i1", "new"], "title": ["Zero", "One", "New"]})
    assert set(titles(files.load(events_at([1, 2]), items))) == {"i0", "i1"}
    assert set(titles(files.load(events_at([1, 2]), items, min_item_events=0))) == {"i0", "i1", "new"}


def test_compressed_tabs(tmp_path: Path) -> None:
    path = tmp_path / "events.tsv.gz"
    path.write_bytes(gzip.compress(b"user_id\titem_id\ttimestamp\textra\na\tx\t1\t?\na\ty\t2\t?\n"))
    data = load(tmp_path / "out", loader="files", interactions=str(path))
    assert data.frame("interactions")["item_id"].tolist() == ["x", "y"]


def test_quoted_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\na,x,1\na,y,2\n")
    (tmp_path / "items.csv").write_text('item_id,title\nx,"A ""fine""\ntitle, really"\ny,Y\n')
    paths = {name: str(tmp_path / f"{file}.csv") for name, file in (("interactions", "events"), ("items", "items"))}
    assert titles(load(tmp_path / "out", loader="files", **paths))["x"][0] == 'A "fine"\ntitle, really'


def test_parquet_and_csv_give_the_same_fingerprint(files: Files) -> None:
    frame = events_at([1_700_000_000, 1_700_000_100, 1_700_000_200], engagement=[0.1, 0.5, 1.0])
    one = files.load(frame).info["fingerprint"]
    assert files.load(frame, suffix="csv").info["fingerprint"] == one
    assert files.load(frame.assign(engagement=[0.1, 0.5, 0.9])).info["fingerprint"] != one
    assert files.load(frame.rename(index={0: 2, 2: 0}).assign(item_id=["i0", "i2", "i1"])).info["fingerprint"] != one
