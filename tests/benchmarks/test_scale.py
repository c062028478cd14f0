"""The benchmark of the table steps, whole, at a size of seconds."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.benchmarks import bench_scale, scale_tables
from tests.benchmarks.bench_scale import Bench, compare, options_of, summary
from tests.benchmarks.scale_process import Finished, run
from tests.benchmarks.scale_steps import STEPS, Place

SIZE = 3000


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs what is run in processes of its own here, which spares the imports of each."""

    def inside(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
        module, printed = importlib.import_module(command[2]), io.StringIO()
        monkeypatch.setattr(sys, "argv", [command[2], *command[3:]])
        with contextlib.redirect_stdout(printed):
            module.main()
        return Finished(json.loads(printed.getvalue().splitlines()[-1]), 0.1)

    monkeypatch.setattr(bench_scale, "run", inside)


def bench(folder: Path) -> Bench:
    others = ["--rivals-at", str(SIZE), "--rounds", "1", "--rectools", "/nowhere"]
    places = ["--folder", str(folder / "files"), "--out", str(folder / "scale.json")]
    return Bench(options_of(["--sizes", str(SIZE), *others, *places]))


def test_every_step_is_measured_once_and_pandas_makes_the_same_rows(
    one_process: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopped:
        part = Bench._part

        def stopping(self: Bench, place: Place, size: int, name: str) -> Finished:
            if name == "transitions":
                raise KeyboardInterrupt
            return part(self, place, size, name)

        stopped.setattr(Bench, "_part", stopping)
        with pytest.raises(KeyboardInterrupt):
            bench(tmp_path).all_sizes()
    half = json.loads((tmp_path / "scale.json").read_text())
    assert f"{SIZE}.histories.seconds" in half and f"{SIZE}.transitions.seconds" not in half
    bench(tmp_path).all_sizes()
    record = json.loads((tmp_path / "scale.json").read_text())
    assert record.items() >= half.items(), "what was measured before is kept"
    for step in STEPS:
        assert record[f"{SIZE}.{step}.seconds"] > 0 and record[f"{SIZE}.{step}.peak_gb"] > 0
    assert record["ratio_vs_pandas_10m"] > 0 and "ratio_vs_rectools_10m" not in record
    assert (tmp_path / "scale.svg").read_text().count("<polyline") == len(STEPS) + 1
    assert not any((tmp_path / "files").iterdir())
    assert scale_tables.steps(record).count("\n") == len(STEPS) + 2
    assert scale_tables.rivals(record).count("\n") == 3
    capsys.readouterr()
    bench(tmp_path).all_sizes()
    assert f"{SIZE:,}: in the record already" in capsys.readouterr().out


def test_slopes_and_ratios() -> None:
    record = {f"{size}m.load.seconds": size**1.5 for size in (1, 10, 100)}
    record |= {f"{size}m.load.peak_gb": float(size) for size in (1, 10, 100)}
    for step, own, other in (("histories", 2.0, 30.0), ("transitions", 4.0, 40.0)):
        for turn, times in enumerate((1, 3, 2)):
            record[f"10m.{step}.newfound.round{turn + 1}.seconds"] = own * times
            record[f"10m.{step}.pandas.round{turn + 1}.seconds"] = other * times
            record[f"10m.preparation.rectools.round{turn + 1}.seconds"] = 10.0 * times
    found = summary(record)
    assert found["load.exponent"] == pytest.approx(1.5) and found["load.exponent_overall"] == pytest.approx(1.5)
    assert found["n_log_n.exponent"] == pytest.approx(1.058, abs=1e-3)
    assert found["peak_gb"] == 100
    assert (found["histories.ratio_vs_pandas_10m"], found["ratio_vs_pandas_10m"]) == (15, 10)
    assert (found["histories.ratio_vs_rectools_10m"], found["ratio_vs_rectools_10m"]) == (5, 2.5)


def test_rows_that_differ_end_the_benchmark(tmp_path: Path) -> None:
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), one)
    pq.write_table(pa.table({"a": [1, 2]}), other)
    compare(one, other)
    pq.write_table(pa.table({"a": [2, 1]}), other)
    with pytest.raises(SystemExit, match="column a"):
        compare(one, other)


def test_a_step_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    part = Bench._part(bench(tmp_path), Place(tmp_path), SIZE, "generate_files")
    assert part.answer["measures"]["interactions"] == SIZE and part.answer["seconds"] < 60
    assert part.peak_gb > 0.05


def test_memory_of_children_counts() -> None:
    child = "import time; block = bytearray(150_000_000); time.sleep(3)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('{{}}')"
    both = f"block = bytearray(150_000_000); {parent}"
    assert 0.3 < run([sys.executable, "-c", both], {}).peak_gb < 0.5
    with pytest.raises(SystemExit, match="ended with 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"], {})
