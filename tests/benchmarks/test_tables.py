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


def test_figures_are_short():
    found = {"a": 0.1234, "a.lower": -0.05, "a.upper": 1.5}
    assert tables._range(found, "a") == ".123 [-.050, 1.500]"
    assert tables._range(found, "a", 2, "+") == "+.12 [-.05, +1.50]"
    assert tables._range(found, "b") == ""
