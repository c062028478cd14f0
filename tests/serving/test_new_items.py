"""New items by the real services: recommended, taken down, rolled back, refused where damaged; no restart, no refit."""

from __future__ import annotations

import asyncio
import functools
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from newfound.cli import app
from newfound.recommend.item_terms import COUNTS
from newfound.release.new_items import NewItem, NewItems, add_new_items, file_of
from newfound.release.store import current, promote, rollback
from serving.explorer.loaded_release import OPTIONAL, PARTS, LoadedRelease, build_loaded_release
from serving.releases import Releases
from tests.serving.conftest import WORLD, Stack, serve
from tests.serving.in_process import paired
from tests.serving.worded import publish_parts, write_parts

LATE = "Rye loaf from the oven: baking sourdough with yeast"
HISTORY = ["reef1", "reef2", "rail3", "rail5"]  # of somebody to whom bread is new
OUTDATED = "Sponge from the shop"


def until(check: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_parts(tmp_path_factory.mktemp("worded"))


@pytest.fixture(scope="module")
def stack(parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Explorer and ranker over two releases, the second of which serves."""
    folder = tmp_path_factory.mktemp("stack")
    for note in ("first", "second"):
        publish_parts(parts, folder / "releases", note)
    wide = {"watch_ms": 200, "deadline_ms": 3000, "ranker_ms": 2000}
    running = serve(folder, folder / "releases", settings=wide)
    try:
        running.ranker.wait()
        running.explorer.wait()
        yield running
    finally:
        running.explorer.stop()
        running.ranker.stop()


def everything(stack: Stack) -> dict[str, dict[str, Any]]:
    """All that is new to somebody, by item."""
    slate = stack.slate(history=HISTORY, k=60, novel=60, seed=1)
    assert slate["degraded"] == [] and all(one["title"] for one in slate["items"])
    return {one["item"]: one for one in slate["items"]}


def ranked(stack: Stack, cluster: str) -> list[str]:
    """The items of an interest, by the ranker alone."""
    body = {"instances": [{"history": HISTORY, "clusters": [cluster], "k": 60}]}
    answer = httpx.post(f"{stack.ranker_url}/v1/models/newfound:predict", json=body).json()
    return [item for item, _ in answer["predictions"][0]["items"][cluster]]


def add(stack: Stack, folder: Path, *rows: tuple[str, str], options: tuple[str, ...] = ()) -> str:
    """Adds items by the command line."""
    file = folder / "new.csv"
    file.write_text("item_id,title\n" + "".join(f'{item},"{title}"\n' for item, title in rows))
    command = ["release", "add-items", str(file), "--releases", str(stack.root), *options]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_new_item_is_recommended_taken_down_and_rolled_back(stack: Stack, tmp_path: Path) -> None:
    before = everything(stack)
    second, bread = stack.slate(history=HISTORY)["release"], before["bread0"]
    assert "late" not in before and stack.metric("newfound_new_items") == 0

    assert "1 items added, 0 there already" in add(stack, tmp_path, ("late", LATE))
    until(lambda: "late" in everything(stack) and "late" in ranked(stack, bread["cluster"]))
    late = everything(stack)["late"]
    assert (late["title"], late["slot"], late["interest"]) == (LATE, "novel", bread["interest"])
    assert late["score"] is not None and set(everything(stack)) == {*before, "late"}
    assert stack.metric("newfound_new_items") == 1
    assert 0 < stack.metric("newfound_new_items_age_seconds") < 600
    consumed = stack.slate(history=[*HISTORY, "late"], k=60, novel=60, seed=1)["items"]
    assert bread["cluster"] not in {one["cluster"] for one in consumed if one["slot"] == "novel"}, "no longer new"

    assert "0 items added, 1 there already" in add(stack, tmp_path, ("late", LATE))
    command = ["takedown", "add", "--item", "late", "--releases", str(stack.root)]
    assert CliRunner().invoke(app, command).exit_code == 0
    until(lambda: "late" not in everything(stack) and "late" not in ranked(stack, bread["cluster"]))
    command[1] = "remove"
    assert CliRunner().invoke(app, command).exit_code == 0
    until(lambda: "late" in everything(stack))

    rollback(str(stack.root))
    until(lambda: stack.slate(history=HISTORY)["release"] != second)
    assert set(everything(stack)) == set(before) and "late" not in ranked(stack, bread["cluster"])
    assert stack.metric("newfound_new_items") == 0, "the older release has none"
    promote(str(stack.root), second)
    until(lambda: stack.slate(history=HISTORY)["release"] == second)
    assert "late" in everything(stack), "with the release come its own"


def by_hand(release: str, *items: str) -> NewItems:
    """New items of the made-up world, all in one leaf."""
    rng, n = np.random.default_rng(7), len(items)
    vectors, text = (rng.normal(size=(n, size)).astype(np.float32) for size in (WORLD.dim, 8))
    vectors, text = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, text))
    placed = tuple(NewItem(item=item, title=f"Title of {item}", leaf="l3.1", row="0" * 64) for item in items)
    return NewItems(release, datetime.now(UTC), placed, vectors, np.ones((n, len(COUNTS)), dtype=np.float32), text)


@pytest.mark.parametrize("first", ["explorer", "ranker"])
def test_nothing_is_harmed_while_one_of_the_two_has_them(release_root: Path, tmp_path: Path, first: str) -> None:
    root = Path(shutil.copytree(release_root, tmp_path / "releases"))
    release = current(str(root))
    assert release is not None

    async def story() -> None:
        async with paired(root, tmp_path / "cache") as pair:
            asked = {"history": ["i1.1", "i2.2"], "k": 100, "novel": 100, "seed": 3}
            (before,) = await pair.predict(asked)
            add_new_items(str(root), by_hand(release, "late1", "late2"))
            (pair.explorer if first == "explorer" else pair.ranker).releases.look()
            (between,) = await pair.predict(asked)
            (with_it,) = await pair.predict({**asked, "history": ["i1.1", "late1"], "exclude": ["late2"]})
            for slate in (between, with_it):
                assert slate["degraded"] == [] and set(pair.statuses) == {200}
                assert {one["title"] for one in slate["items"]} == {f"Title of {one['item']}" for one in slate["items"]}
            shown = {one["item"] for one in between["items"]}
            assert len(between["items"]) == len(before["items"]) == 100 and not shown & {"late1", "late2"}
            for model in (pair.explorer, pair.ranker):
                model.releases.look()
            (after,) = await pair.predict({**asked, "exclude": [f"i3.{n}" for n in range(30)]})
            assert {one["item"] for one in after["items"] if one["cluster"] == "c3"} == {"late1", "late2"}

    asyncio.run(story())


def test_a_service_that_starts_beside_a_damaged_file_serves_without_it(
    release_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(shutil.copytree(release_root, tmp_path / "releases"))
    release = current(str(root))
    assert release is not None
    build = functools.partial(build_loaded_release, planner=False, remembered=10)
    file = root / file_of(release)

    def follow() -> Releases[LoadedRelease]:
        made: Releases[LoadedRelease] = Releases(str(root), tmp_path, PARTS, build, 60, optional=OPTIONAL)
        made.look()
        return made

    def titles(of: Releases[LoadedRelease]) -> dict[str, str]:
        loaded = of.get()
        assert loaded is not None
        return loaded.catalogue.titles

    whole = by_hand(release, "late1")
    elsewhere = whole.items[0].model_copy(update={"leaf": "of another release"})
    for harm in (lambda: file.write_bytes(b"?"), lambda: add_new_items(str(root), replace(whole, items=(elsewhere,)))):
        file.unlink(missing_ok=True)
        harm()
        caplog.clear()
        started = follow()
        assert "late1" not in titles(started)
        (told,) = [one.getMessage() for one in caplog.records if "new items are refused" in one.getMessage()]
        assert file.name in told or "of another release" in told
        started.look()
        assert sum("refused" in one.getMessage() for one in caplog.records) == 1, "once for each content"
    add_new_items(str(root), whole, replace=True)
    for releases in (started, follow()):
        releases.look()
        assert titles(releases)["late1"] == "Title of late1"
    file.unlink()
    started.look()
    assert "late1" not in titles(started)


def test_a_damaged_file_is_named_and_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    add(stack, tmp_path, ("late", LATE))
    until(lambda: "late" in everything(stack))
    refused = stack.metric("newfound_new_items_refused_total")
    file = stack.root / file_of(stack.slate(history=HISTORY)["release"])
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    until(lambda: stack.metric("newfound_new_items_refused_total") > refused)
    assert "late" in everything(stack), "what serves goes on"
    for service in (stack.explorer, stack.ranker):
        until(lambda service=service: file.name in service.log.read_text())  # type: ignore[misc]

    command = ["release", "add-items", str(tmp_path / "new.csv"), "--releases", str(stack.root)]
    assert "not those of its record" in str(CliRunner().invoke(app, command).exception)
    add(stack, tmp_path, ("later", OUTDATED), options=("--replace",))
    until(lambda: "later" in everything(stack) and "late" not in everything(stack))
