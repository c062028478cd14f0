"""The page: self-contained, complete, safe with any text, and sound as HTML."""

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import pytest

from newfound.evaluation.report import charts
from newfound.evaluation.report.page import render, write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Sound(HTMLParser):
    """Collects tags and text; fails where tags are not nested."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)


def parse(html: str) -> Sound:
    found = Sound()
    found.feed(html)
    assert not found.open
    return found


def test_the_page_is_sound_and_holds_every_part(findings):
    page = parse(render(findings))
    ids = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert ids == ["measures", "composed", "experiment", "slates", "map", "transitions", "training", "notes"]
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == [f"#{one}" for one in ids]
    text = " ".join(page.words)
    for needed in ("Held-out pairs", "Light users", "NovelRecall@10", "Planner", "Optuna", "Match rate", "HR@10"):
        assert needed in text


def test_a_flag_stands_above_the_figures_and_with_its_own(findings, hostile):
    unflagged = " ".join(parse(render(findings)).words)
    assert "No flag: the planner finds more" in unflagged and "Flagged" not in unflagged
    told = f"not shown that the planner finds more than pair frequency: +0.0010 [-0.0100, +0.0120] {hostile}"
    page = parse(render(findings | {"flags": {"experiment.found": told}}))
    words = "".join(page.words)
    assert words.count("+0.0010 [-0.0100, +0.0120]") == 2 and "No flag" not in words
    assert [attrs for tag, attrs in page.tags if attrs.get("class") == "flag"]
    # Findings of before the small experiment, and of data without a language model, have no such section.
    without = {key: value for key, value in findings["metrics"].items() if not key.startswith("experiment.")}
    assert "The claim, in small" not in render(findings | {"metrics": without})


def test_nothing_is_fetched(findings):
    page = render(findings)
    for tag, attrs in parse(page).tags:
        assert tag not in ("link", "img", "iframe", "object", "embed"), tag
        assert "src" not in attrs and not str(attrs.get("href", "#")).startswith(("http", "//"))
    assert "url(" not in page and "@import" not in page and "://" not in page
    assert len(page.encode()) < 2_000_000


def test_hostile_text_stays_text(findings, hostile):
    page = render(findings)
    scripts = [tag for tag, _ in parse(page).tags if tag == "script"]
    assert len(scripts) == 1  # the page's own
    assert 'alert("x")' not in page and "<script>alert" not in page and "\x07" not in page
    shown = "".join(parse(page).words)
    assert '<script>alert("x")</script>' in shown  # readable as what it is


def test_the_page_runs_its_own_script_and_no_other(findings):
    """The policy names the script's digest: text that gets into the page as a script would not run."""
    page = render(findings)
    policy = next(attrs["content"] for tag, attrs in parse(page).tags if attrs.get("http-equiv"))
    rules = dict(rule.split(maxsplit=1) for rule in policy.split(";"))
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'" and rules["default-src"] == "'none'"


@pytest.mark.parametrize(
    "absent", ["slates", "map", "transitions", "training", "tuning", "quota", "deciles", "methods"]
)
def test_a_part_without_findings_is_left_out(findings, absent):
    findings[absent] = type(findings[absent])()
    parse(render(findings))


def test_a_failed_gate_is_said_first(findings, tmp_path):
    findings["gates"][0] |= {"passed": False, "value": 0.4}
    write_report(findings, tmp_path / "report.html")
    words = " ".join(parse((tmp_path / "report.html").read_text(encoding="utf-8")).words)
    assert "A gate does not hold" in words and "Match rate, free decoding: fails" in words
    findings["gates"] = []
    assert "Not every gate could be judged" in render(findings)


class TestCharts:
    def test_numbers_as_people_write_them(self):
        shown = [charts.number(v) for v in (0.1234, -0.5, 1.5, 2414.0, 0.0, 1.0, math.nan, None)]
        assert shown == [".123", "-.500", "1.50", "2,414", ".000", "1.00", "–", "–"]

    def test_dots_come_best_first_on_a_scale_from_zero(self):
        html = charts.dot_plot("t", [charts.Dot("low", 0.1), charts.Dot("high", 0.2, 0.15, 0.25, "ours", 0.05)])
        assert html.index("high") < html.index("low")
        places = [float(p) for p in re.findall(r'class="dot" style="left:([\d.]+)%', html)]
        assert places == pytest.approx([100 * 0.2 / 0.26, 100 * 0.1 / 0.26], abs=0.01)
        assert charts.dot_plot("t", [charts.Dot("none", math.nan)]) == ""

    def test_a_line_stops_at_gaps(self):
        html = charts.line_chart("t", [charts.Series("s", [0, 1, 2, 3], [1, 2, math.nan, 4])], "x", "y")
        assert html.count("<circle") == 3 and len(re.findall("M", re.findall(r' d="([^"]+)"', html)[0])) == 2
        assert charts.line_chart("t", [charts.Series("s", [0], [math.nan])], "x", "y") == ""

    @pytest.mark.parametrize("values", [[0.0, 0.0], [1.0], [1e-6, 2e-6], [-5.0, 5.0], [1e9, 3e9]])
    def test_any_range_has_ticks(self, values):
        html = charts.line_chart("t", [charts.Series("s", list(range(len(values))), values)], "x", "y", from_zero=True)
        parse(html)
        assert 2 <= html.count('class="grid"') <= 12

    def test_names_on_the_map_keep_apart(self):
        bubbles = [charts.Bubble(f"name {i}", 0.5, 0.5, 1 / (i + 1), 0) for i in range(9)]
        assert charts.bubble_map(bubbles, ["g"]).count("<b ") == 1
