"""Tables in pages: what is replaced, and what stays."""

from tests.benchmarks import capacity_tables, tables


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


def test_capacity_is_arithmetic_on_the_record():
    """Two sizes tell what an item costs; the rest follows."""
    sizes = {1_000_000: (2_000.0, 3_000.0), 5_000_000: (6_000.0, 5_000.0)}
    record = {"redis.users": 1, "redis.events_a_user": 100.0, "redis.bytes_a_user": 5_000.0}
    record |= {
        "redis.bytes_a_user_beside_events": 1_000.0,
        "redis.bytes_an_event": 40.0,
        "explorer.cpu_ms@1000000": 3.0,
    }
    for items, (ranker, explorer) in sizes.items():
        record |= {f"ranker.resident_mb@{items}": ranker, f"explorer.resident_mb@{items}": explorer}
        record |= {f"ranker.cpu_ms@{items}": 6.0}
    assert capacity_tables.bytes_an_item(record, "ranker") == 1000
    made = capacity_tables.serving(record)
    for line in (
        "100,000,000 × 1,000 B | 100 GB",
        "100,000,000 / 5,000,000 | 20",
        "100,000 × 20 × 6.00 ms / 0.6 | 20,000",
        "100,000 × 3.00 ms / 0.6 | 500",
        "1,000,000,000 × 5,000 B × 2 | 10.0 TB: 209 machines of 64 GB",
        "1,000,000,000 × 41,000 B × 2 | 82.0 TB",
    ):
        assert line in made, line
    assert "639,200 × 800 × 2 B | 1.0 GB" in capacity_tables.table(record)
    # 2 × 134,515,008 × 639,200 × 40 operations at 35 % of 989 TFLOP/s are 19.9 s.
    assert "2 × 1.35e+08 × 2.56e+07 | 0.01" in capacity_tables.gpu(record)
    assert "1.06" not in capacity_tables.ranker_training(record) and "1.00e+11" in capacity_tables.ranker_training(
        record
    )


def test_without_enough_of_a_record_a_table_of_capacity_stays():
    assert capacity_tables.units({}) == capacity_tables.serving({}) == capacity_tables.services({}) == ""
