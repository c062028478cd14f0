"""Tables in pages: what is replaced, and what stays."""

from tests.benchmarks import tables


def test_a_table_is_replaced_and_the_rest_stays(monkeypatch):
    monkeypatch.setitem(tables.TABLES, "worth", lambda record: tables._rows(["a"], [[str(record["x"])]]))
    page = "before\n<!-- table worth -->\nold\n\nolder\n<!-- end -->\nafter\n"
    made = tables.fill(page, {"x": 7})
    assert made == "before\n<!-- table worth -->\n| a |\n| --- |\n| 7 |\n<!-- end -->\nafter\n"
    assert tables.fill(made, {"x": 7}) == made


def test_without_a_run_a_table_stays(monkeypatch):
    monkeypatch.setitem(tables.TABLES, "worth", lambda record: "")
    page = "<!-- table worth -->\nold\n<!-- end -->"
    assert tables.fill(page, {}) == page


def test_without_the_benchs_record_its_tables_stay_and_others_are_written(monkeypatch):
    page = "<!-- table costs -->\nold\n<!-- end -->\n<!-- table experiment-own -->\n<!-- end -->"
    half = {f"experiment.{arm}.found": 0.25 for arm in ("planner", "pair_frequency", "chance")}
    lift = {f"experiment.planner.minus.pair_frequency.found{end}": 0.01 for end in ("", ".lower", ".upper")}
    counts = {"experiment.choices.found": 4454.0, "experiment.people.found": 892.0}
    monkeypatch.setattr(tables, "metrics_of", lambda name: {**half, **lift, **counts} if name == "movielens" else {})
    made = tables.fill(page, {})
    assert made.startswith("<!-- table costs -->\nold\n") and "| +0.0100 [+0.0100, +0.0100] | 4,454, 892 |" in made


def test_figures_are_short():
    found = {"a": 0.1234, "a.lower": -0.05, "a.upper": 1.5}
    assert tables._range(found, "a") == ".123 [-.050, 1.500]"
    assert tables._range(found, "a", 2, "+") == "+.12 [-.05, +1.50]"
    assert tables._range(found, "b") == ""
