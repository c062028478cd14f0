"""The page in a real Chromium: by pointer, by keyboard, wide and narrow."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any, stack: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(20_000)
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on(
        "request",
        lambda request: problems.append(request.url) if not request.url.startswith((stack.url, "data:")) else None,
    )
    opened.goto(f"{stack.url}/page")
    opened.wait_for_selector("#slate li")
    yield opened
    assert problems == [], "no error, and nothing from elsewhere"
    opened.close()


def titles(page: Any) -> list[str]:
    return page.locator("#slate .title").all_inner_texts()


def known(page: Any, events: int) -> None:
    """Waits until the page shows so many events."""
    from playwright.sync_api import expect

    expect(page.locator("#history-text")).to_have_text(re.compile(rf"^{events} events"), timeout=20_000)


def test_a_user_s_slate_says_what_is_new_and_why(page):
    page.fill("#user", "u3")
    page.click("button[type=submit]")
    known(page, 40)
    novel = page.locator("#slate li.novel")
    assert novel.count() >= 1 and page.locator("#slate li").count() == 10
    assert "new interest" in novel.first.inner_text() and "because you like" in novel.first.inner_text()
    assert page.locator("#map circle.fresh").count() >= 1 and page.locator("#map circle.source").count() >= 1
    assert page.locator("#map circle").count() == 24


def test_the_quota_changes_the_slate(page):
    from playwright.sync_api import expect

    page.fill("#user", "u4")
    page.press("#user", "Enter")
    page.wait_for_selector("#slate li")
    page.locator("#quota").fill("0")
    expect(page.locator("#slate li.novel")).to_have_count(0, timeout=20_000)
    page.locator("#quota").fill("7")
    expect(page.locator("#slate li.novel")).to_have_count(7, timeout=20_000)


def test_a_like_is_reacted_to_and_everything_works_by_keyboard(page):
    from playwright.sync_api import expect

    of_another = titles(page)
    page.focus("#user")
    page.keyboard.press("Control+A")
    page.keyboard.type("u5")
    page.keyboard.press("Enter")
    # The user before has 40 events as well: only the slate tells that this one's has come.
    expect(page.locator("#slate .title")).not_to_have_text(of_another, timeout=20_000)
    known(page, 40)
    before = titles(page)
    like = page.locator("#slate li.novel button").first
    liked = like.get_attribute("aria-label").removeprefix("Like ")
    like.focus()
    page.keyboard.press("Enter")
    known(page, 41)
    expect(page.locator("#slate .title")).not_to_have_text(before, timeout=20_000)
    assert liked not in titles(page) and liked in page.locator("#history li.liked-now").inner_text()
    page.focus("#quota")
    page.keyboard.press("Home")
    expect(page.locator("#slate li.novel")).to_have_count(0, timeout=20_000)
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#slate li.novel")).to_have_count(6, timeout=20_000)
    reached = set()
    page.focus("#user")
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"quota", "appetite", "seed", "shuffle", "like"} <= reached


def test_an_unknown_user_is_answered(page):
    from playwright.sync_api import expect

    page.fill("#user", "<script>alert(1)</script>")
    page.click("button[type=submit]")
    expect(page.locator("#history-text")).to_have_text(re.compile("^Nothing is known"), timeout=20_000)
    assert page.locator("#slate li").count() == 10


def test_what_was_taken_down_is_on_the_page_no_more(page, stack):
    from playwright.sync_api import expect

    page.fill("#user", "u6")
    page.click("button[type=submit]")
    known(page, 40)
    items = stack.history(6).item_ids[-2:]
    try:
        (stack.root / "takedown.json").write_text(json.dumps({"items": items, "clusters": ["c3"]}))
        end = time.monotonic() + 20
        while len(httpx.get(f"{stack.url}/page/interests.json").json()["interests"]) == 24:
            assert time.monotonic() < end
            time.sleep(0.05)
        page.reload()
        expect(page.locator("#map circle")).to_have_count(23, timeout=20_000)
        page.fill("#user", "u6")
        page.click("button[type=submit]")
        gone = len([item for item in stack.history(6).item_ids if item in items or item.startswith("i3.")])
        known(page, 40 - gone)
    finally:
        (stack.root / "takedown.json").write_text("{}")
    while len(httpx.get(f"{stack.url}/page/interests.json").json()["interests"]) == 23:
        time.sleep(0.05)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_wide_and_narrow(page, width, tmp_path):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    small = page.evaluate(
        "[...document.querySelectorAll('button, input:not([type=checkbox])')]"
        ".filter(e => e.offsetHeight < 24).map(e => e.id)"
    )
    assert small == []
    outside = page.evaluate(
        "(edge => [...document.querySelectorAll('#labels text')].map(e => e.getBoundingClientRect())"
        ".filter(r => r.left < edge.left || r.right > edge.right).length)"
        "(document.getElementById('map').getBoundingClientRect())"
    )
    assert page.locator("#labels text").count() >= 2 and outside == 0
    shot = Path(os.environ.get("NEWFOUND_SCREENSHOTS", tmp_path)) / f"page-{width}.png"
    page.screenshot(path=str(shot), full_page=True)


def test_the_page_may_load_nothing_from_elsewhere(stack):
    policy = httpx.get(f"{stack.url}/page").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert httpx.get(f"{stack.url}/page/../model.py").status_code == 404
    assert httpx.get(f"{stack.url}/page/other.js").status_code == 404
