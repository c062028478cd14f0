"""The local runner on a small pipeline: what is cached, what runs again, what a person sees, what a kill leaves."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output
from rich.console import Console

from pipelines.local import Run, StepError, run_pipeline
from pipelines.profile import read_profile, write_report

ROOT = Path(__file__).parents[2]


# Two steps: write numbers to a folder, sum them. `toy` in the settings says what to do.
@dsl.component(base_image="python:3.11", packages_to_install=[], install_kfp_package=False)
def write_numbers(settings: str, numbers: Output[Dataset], metrics: Output[Metrics]):
    import json
    import logging
    from pathlib import Path

    from components._step import running

    with running(settings, metrics, numbers) as step:
        values = json.loads(settings)["toy"]
        Path(numbers.path, "inner").mkdir(parents=True)
        Path(numbers.path, "inner", "values.json").write_text(json.dumps(values))
        logging.getLogger("newfound.toy").info("wrote [%d] numbers", len(values))
        logging.getLogger("elsewhere").info("not worth showing")
        step.measures = {"count": len(values), "what": "numbers"}


@dsl.component(base_image="python:3.11", packages_to_install=[], install_kfp_package=False)
def add_up(settings: str, numbers: Input[Dataset], total: Output[Dataset], metrics: Output[Metrics]):
    import json
    import time
    from pathlib import Path

    from components._step import running
    from newfound.errors import DataError

    with running(settings, metrics, total) as step:
        toy = json.loads(settings)["toy"]
        values = json.loads(Path(numbers.path, "inner", "values.json").read_text())
        if toy == "refuse":
            raise DataError("numbers", "a one", expected="twos", row=1)
        if toy == "crash":
            print(values["not there"])
        if toy == "fill":
            bytearray(b"x") * 300_000_000
        if toy == "sleep":
            Path(total.path).with_name("started").touch()
            time.sleep(600)
        Path(total.path).write_text(str(sum(values)))
        step.measures = {"total": sum(values), "share": 0.5}


@dsl.pipeline(name="toy")
def toy(numbers: str, total: str):
    written = write_numbers(settings=numbers)
    add_up(settings=total, numbers=written.outputs["numbers"])


def _settings(toy: Any, code: str = "1") -> str:
    return json.dumps({"config": {"seed": 7}, "code": code, "toy": toy})


def _run(runs: Path, numbers: str, total: str) -> tuple[Run, str]:
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    done = run_pipeline(toy, {"numbers": numbers, "total": total}, runs=runs, threads=1, console=console)
    return done, shown.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the pipeline ran once."""
    folder = tmp_path_factory.mktemp("runs")
    done, shown = _run(folder, _settings([1, 2]), _settings("add"))
    assert done.artifacts["total"].read_text() == "3"
    lines = [line.rstrip() for line in shown.splitlines()]
    assert [line.split()[0] for line in lines if line[0] != " "] == ["→", "✓", "→", "✓"]
    assert "      wrote [2] numbers" in lines
    assert any(line.startswith("✓  1/2 write numbers") and line.endswith("s  count 2") for line in lines)
    assert any(line.startswith("✓  2/2 add up") and line.endswith("s  total 3, share 0.5") for line in lines)
    assert "elsewhere" not in shown and "KFP" not in shown
    return folder


def _ran(shown: str) -> list[str]:
    """Steps that ran, by what was shown."""
    return [line.split("/2 ")[1].strip() for line in shown.splitlines() if line.startswith("→")]


def test_what_has_not_changed_comes_from_the_cache(runs: Path) -> None:
    first = (runs / "total").resolve()
    done, shown = _run(runs, _settings([1, 2]), _settings("add"))
    assert _ran(shown) == []
    assert shown.count("cached") == 2
    assert "count 2" in shown and "total 3" in shown
    assert done.artifacts["total"] == first == (runs / "total").resolve()


def test_the_profile_has_what_every_step_took(runs: Path, tmp_path: Path) -> None:
    _run(runs, _settings([1, 2]), _settings("add", code="profiled"))
    first, second = read_profile(runs)
    assert (first.task, first.cached, second.task, second.cached) == ("write-numbers", True, "add-up", False)
    for step in (first, second):
        # A process that imports kfp and our step takes some hundred megabytes, and not the parent's gigabyte.
        assert 0 < step.wall_seconds < 600 and 0 <= step.cpu_seconds < 600 and 30 < step.peak_megabytes < 1000
    page = tmp_path / "page.html"
    page.write_text("<main><section>before</section></main><footer>after</footer>")
    write_report(page, [first, second], tmp_path / "report.html")
    report = (tmp_path / "report.html").read_text()
    assert report.index("before") < report.index("add up") < report.index("after") and "all of them" in report
    assert "<td>cached</td>" in report


def test_a_step_that_allocates_shows_it(runs: Path) -> None:
    _run(runs, _settings([1, 2]), _settings("add", code="small"))
    small = read_profile(runs)[1].peak_megabytes
    _run(runs, _settings([1, 2]), _settings("fill"))
    assert 250 < read_profile(runs)[1].peak_megabytes - small < 400


def test_a_late_change_runs_the_late_step_alone(runs: Path) -> None:
    _, shown = _run(runs, _settings([1, 2]), _settings("add", code="touched"))
    assert _ran(shown) == ["add up"]
    assert (runs / "total").read_text() == "3"


def test_an_early_change_runs_what_follows_too(runs: Path) -> None:
    _, shown = _run(runs, _settings([3, 4]), _settings("add"))
    assert _ran(shown) == ["write numbers", "add up"]
    assert (runs / "total").read_text() == "7"


@pytest.mark.parametrize("how", ["deleted", "truncated"])
def test_a_file_that_is_gone_is_made_again(runs: Path, how: str) -> None:
    _run(runs, _settings([1, 2]), _settings("add"))
    file = runs / "numbers" / "inner" / "values.json"
    if how == "deleted":
        file.unlink()
    else:
        file.write_text("")
    _, shown = _run(runs, _settings([1, 2]), _settings("add"))
    assert _ran(shown) == ["write numbers", "add up"]
    assert (runs / "numbers" / "inner" / "values.json").read_text() == "[1, 2]"


def test_a_step_that_refuses_says_so_in_one_line_and_the_next_run_goes_on(runs: Path) -> None:
    with pytest.raises(StepError) as caught:
        _run(runs, _settings([1, 2, 3]), _settings("refuse"))
    assert str(caught.value) == "add up: numbers, row 1: a one; expected twos"
    with pytest.raises(StepError, match="^add up failed: TypeError: list indices .*add-up.log"):
        _run(runs, _settings([1, 2, 3]), _settings("crash"))
    assert "Traceback" in (runs / "logs" / "add-up.log").read_text()
    _, shown = _run(runs, _settings([1, 2, 3]), _settings("add"))
    assert _ran(shown) == ["add up"]
    assert (runs / "total").read_text() == "6"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_killed_goes_on_where_it_stood(runs: Path, how: signal.Signals) -> None:
    numbers = _settings([5, int(how)])
    program = (
        "import importlib.util, sys; from pathlib import Path;"
        f"spec = importlib.util.spec_from_file_location('toys', {str(Path(__file__))!r});"
        "module = importlib.util.module_from_spec(spec); sys.modules['toys'] = module; spec.loader.exec_module(module);"
        f"module._run(Path({str(runs)!r}), {numbers!r}, {_settings('sleep')!r})"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    flag = _wait_for(lambda: next(runs.glob("work/*/*/add-up/started"), None))
    with pytest.raises(StepError, match="another run is at work there"):
        _run(runs, numbers, _settings("add"))
    step = _wait_for(lambda: _process_of(flag.parent))
    started.send_signal(how)
    assert started.wait(timeout=60) != 0
    started.communicate()
    # The step must not live on and take the machine from the next run.
    _wait_for(lambda: not Path(f"/proc/{step}").exists() or None)

    _, shown = _run(runs, numbers, _settings("add"))

    assert _ran(shown) == ["add up"]
    assert (runs / "total").read_text() == str(5 + how)
    assert not flag.exists()


def test_what_no_result_refers_to_is_removed(runs: Path) -> None:
    stray = (runs / "total").resolve().parents[1] / "add-up-1999"
    stray.mkdir(parents=True)
    (stray / "total").touch()
    _run(runs, _settings([1, 2]), _settings("add"))
    assert not stray.exists()
    assert (runs / "numbers" / "inner" / "values.json").is_file()


def test_the_environment_is_as_it_was(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWFOUND_FEATURES", "mine")
    before = dict(os.environ)
    _run(runs, _settings([1, 2]), _settings("add"))
    assert dict(os.environ) == before


def _wait_for(ask: Any, seconds: float = 400) -> Any:
    end = time.monotonic() + seconds
    while (found := ask()) is None:
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)
    return found


def _process_of(folder: Path) -> int | None:
    """The step's own process: the one that was given this folder and is no shell."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in words and b"executor_main" in words and not words.startswith(b"sh\0"):
                return int(entry.name)
    return None


def test_what_a_person_keeps_in_the_folder_of_runs_stays(tmp_path: Path) -> None:
    own = [
        tmp_path / "work" / "notes" / "thesis.txt",
        tmp_path / "work" / "draft.txt",
        tmp_path / "cache" / "list.json",
    ]
    for file in own:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    for numbers in ([1], [2]):
        _run(tmp_path, _settings(numbers), _settings("add"))
    assert [file.read_text() for file in own] == ["mine"] * 3


def test_outputs_that_no_cached_result_refers_to_are_removed(tmp_path: Path) -> None:
    _run(tmp_path, _settings([1]), _settings("add"))
    old = (tmp_path / "total").resolve()
    for entry in (tmp_path / "cache").glob("*.json"):
        entry.unlink()
    _run(tmp_path, _settings([2]), _settings("add"))
    assert not old.exists() and len(list((tmp_path / "work").iterdir())) == 1


@pytest.mark.parametrize(
    "content", ["", "[1]", "null", '{"a": {"__kfp_artifact__": true}}', '{"a": {"__kfp_artifact__": true, "uri": 3}}']
)
def test_a_broken_cache_entry_is_forgotten(tmp_path: Path, content: str) -> None:
    _run(tmp_path, _settings([1, 2]), _settings("add"))
    for entry in (tmp_path / "cache").glob("*.json"):
        entry.write_text(content)
    _, shown = _run(tmp_path, _settings([1, 2]), _settings("add"))
    assert _ran(shown) == ["write numbers", "add up"] and (tmp_path / "total").read_text() == "3"
