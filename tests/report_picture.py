"""Takes the picture of a report for the README. `python -m tests.report_picture REPORT PICTURE`"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT = 1200, 1130


def take(report: Path, picture: Path) -> None:
    """Opens the report in Chromium and writes its first screen as PNG.

    Raises:
        SystemExit: there is no report, or no Chromium.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is not installed (apt-get install chromium)")
    if not report.is_file():
        raise SystemExit(f"{report}: no such file; `make run` writes it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.screenshot(path=str(picture))
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
