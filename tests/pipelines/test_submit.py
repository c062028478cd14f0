"""Submitting, against a Kubeflow Pipelines API on loopback."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from newfound.errors import ConfigError, NewfoundError
from newfound.release import store as release
from pipelines.__main__ import app
from pipelines.kubeflow import RunError, SubmitError, compile_pipeline
from pipelines.options import PLATFORM
from pipelines.platform import load_platform
from tests.pipelines.kfp_api import KfpApi, serving

ROOT = Path(__file__).parents[2]
TOKEN = "NEWFOUND_KFP_TOKEN"


@pytest.fixture
def api() -> Iterator[KfpApi]:
    api = KfpApi()
    with serving(api.answer) as url:
        api.url = url
        yield api


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # kfp keeps what it learned of a server in the home folder.
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (TOKEN, "KF_PIPELINES_SA_TOKEN_PATH", "NEWFOUND_KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once() -> Iterator[None]:
    """The compiler is slow; what it writes for a pipeline, a platform and a number of shards is always the same."""
    kept: dict[str, str] = {}

    def compile_once(name: str, output: Path, *given: object, **options: object) -> None:
        key = repr((name, given, sorted(options.items())))
        if key not in kept:
            compile_pipeline(name, output, *given, **options)  # type: ignore[arg-type]
            kept[key] = output.read_text(encoding="utf-8")
        output.write_text(kept[key], encoding="utf-8")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.kubeflow.compile_pipeline", compile_once)
        yield


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose data is here, so that its state is known."""
    (tmp_path / "mine.csv").write_text("user_id,item_id,timestamp\n")
    file = tmp_path / "small.yaml"
    data = {"loader": "files", "interactions": str(tmp_path / "mine.csv")}
    file.write_text(yaml.safe_dump({"data": data, "table": {"shards": 3}}))
    return file


class Done(NamedTuple):
    """How a command ended, and what it said."""

    exit_code: int
    output: str


def _submit(api: KfpApi, config: Path, *options: str, host: str | None = None) -> Done:
    command = ["submit", "--host", host or api.url, "--releases", str(config.parent / "releases")]
    command += ["--config", str(config), "--platform", str(ROOT / PLATFORM), "--poll", "0", *options]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.submission.console", Console(file=said, width=200))
        done = CliRunner().invoke(app, command)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, said.getvalue() + done.output)


def test_a_run_is_uploaded_named_and_started(api: KfpApi, config: Path) -> None:
    done = _submit(api, config, "--experiment", "spring")
    assert done.exit_code == 0, done.output
    (run,) = api.runs.values()
    assert f"{api.url}/#/runs/details/run-1" in done.output
    (experiment,) = api.experiments.values()
    assert experiment["display_name"] == "spring" and run["experiment_id"] == "experiment-1"
    version = api.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
    assert api.pipelines[version["pipeline_id"]]["display_name"] == "newfound-training"
    # The data and the configuration are in the name, each with its state.
    kind, data, named, day, _ = run["display_name"].split(" ")
    assert (kind, data.rpartition("-")[0], named.rpartition("-")[0]) == ("training", "mine", "small")
    assert len(data.rpartition("-")[2]) == len(named.rpartition("-")[2]) == 8 and day.startswith("20")
    # What was uploaded takes the arguments that the run is given.
    spec = api.uploads[-1]
    assert set(run["runtime_config"]["parameters"]) == set(spec["root"]["inputDefinitions"]["parameters"])
    image = load_platform(ROOT / PLATFORM).image
    assert {one["container"]["image"] for one in spec["deploymentSpec"]["executors"].values()} == {image}
    assert image in run["runtime_config"]["parameters"]["ranker"]
    assert run["runtime_config"]["pipeline_root"] == "s3://your-bucket/pipelines"


def test_names_follow_data_and_configuration(api: KfpApi, config: Path) -> None:
    def names() -> list[str]:
        return [run["display_name"].rsplit(" ", 2)[0] for run in api.runs.values()]

    _submit(api, config)
    _submit(api, config)
    (config.parent / "mine.csv").write_text("user_id,item_id,timestamp\na,b,1\n")
    _submit(api, config)
    config.write_text(config.read_text() + "seed: 8\n")
    _submit(api, config)
    first, same, other_data, other_config = names()
    assert first == same
    assert other_data.split()[1] != first.split()[1] and other_data.split()[2] == first.split()[2]
    assert other_config.split()[2] != first.split()[2]
    assert _submit(api, config, "--name", "mine alone").exit_code == 0
    assert list(api.runs.values())[-1]["display_name"] == "mine alone"


def test_the_release_that_is_followed_is_named(api: KfpApi, config: Path, tmp_path: Path) -> None:
    """An id, so that cached clusters are those of this very release; a schedule looks anew each time."""
    _submit(api, config)
    (tmp_path / "part.json").write_text("{}")
    parts = {"part.json": tmp_path / "part.json"}
    made = release.publish(parts, str(tmp_path / "releases"), lineage={}, measures={}, fits={}, gates={})
    _submit(api, config)
    _submit(api, config, "--cron", "0 0 3 * * 1")
    runs = [*api.runs.values(), *api.recurring.values()]
    assert [run["runtime_config"]["parameters"]["previous"] for run in runs] == ["", made.id, "current"]
    cached = [
        spec["root"]["dag"]["tasks"]["build-clusters"]["cachingOptions"].get("enableCache") for spec in api.uploads
    ]
    assert cached[0] and not cached[-1]


def test_the_same_pipeline_is_uploaded_once(api: KfpApi, config: Path) -> None:
    for _ in range(3):
        _submit(api, config)
    _submit(api, config, "batch")
    # The pipeline's first version bears its name, and the second its content's.
    assert sorted(one["display_name"].split(" ")[0] for one in api.versions.values()) == [
        "newfound-batch",
        "newfound-batch",
        "newfound-training",
        "newfound-training",
    ]
    assert len(api.pipelines) == 2 and len(api.experiments) == 1 and len(api.runs) == 4


def test_a_schedule(api: KfpApi, config: Path) -> None:
    done = _submit(api, config, "--cron", "0 0 3 * * 1")
    assert done.exit_code == 0 and "scheduled" in done.output and not api.runs
    (recurring,) = api.recurring.values()
    assert recurring["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * 1"
    assert (int(recurring["max_concurrency"]), recurring["no_catchup"], recurring["mode"]) == (1, True, "ENABLE")
    tasks = api.uploads[-1]["root"]["dag"]["tasks"]
    assert not tasks["load-interactions"]["cachingOptions"].get("enableCache")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cron", "0 0 3 * * 1", "--wait"), "--wait"),
        (("refresh", "--cron", "0 0 3 * * 1"), "--cron"),
        (("nothing",), "no such pipeline"),
    ],
)
def test_what_makes_no_sense_is_refused(api: KfpApi, config: Path, options: tuple[str, ...], told: str) -> None:
    with pytest.raises(NewfoundError, match=told):
        _submit(api, config, *options)
    assert not api.seen


def test_waiting_tells_how_every_step_ended(api: KfpApi, config: Path) -> None:
    api.ends = ("SUCCEEDED", {"load-interactions": ("SUCCEEDED", ""), "check-gates": ("SUCCEEDED", "")})
    done = _submit(api, config, "--wait")
    assert done.exit_code == 0 and "succeeded   check-gates" in done.output
    assert "root" not in done.output.replace(str(config.parent), "")


def test_gates_that_do_not_hold_are_told(api: KfpApi, config: Path) -> None:
    why = "gate 'recall_over_chance': 1.93 < 3"
    api.ends = ("FAILED", {"evaluate": ("SUCCEEDED", ""), "check-gates": ("FAILED", why)})
    with pytest.raises(RunError, match=r"the gates do not hold, nothing was published: gate 'recall_over_chance'"):
        _submit(api, config, "--wait")


def test_another_step_that_failed_is_named(api: KfpApi, config: Path) -> None:
    api.ends = ("FAILED", {"evaluate": ("FAILED", "OOMKilled"), "load-interactions": ("SUCCEEDED", "")})
    with pytest.raises(RunError, match=r"FAILED: evaluate \(OOMKilled\): http"):
        _submit(api, config, "--wait")


def test_waiting_ends(api: KfpApi, config: Path) -> None:
    api.looks = 10_000_000
    with pytest.raises(RunError, match="still running after 0.2 s"):
        _submit(api, config, "--wait", "--timeout", "0.2")


def test_a_token_is_brought(api: KfpApi, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.token = "s3cret"
    with pytest.raises(SubmitError, match="answered 401: the server wants you to log in; set NEWFOUND_KFP_TOKEN"):
        _submit(api, config)
    monkeypatch.setenv(TOKEN, "s3cret")
    done = _submit(api, config)
    assert done.exit_code == 0 and "s3cret" not in done.output


def test_a_pod_brings_its_service_accounts_token_and_its_profile(
    api: KfpApi, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    api.token, api.namespaces = "s3cret", ("mine",)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("NEWFOUND_KFP_NAMESPACE", "mine")
    with pytest.raises(ConfigError, match="token: cannot be read"):
        _submit(api, config)
    (tmp_path / "token").write_text("s3cret\n")
    assert _submit(api, config).exit_code == 0
    monkeypatch.setenv("NEWFOUND_KFP_NAMESPACE", "theirs")
    with pytest.raises(SubmitError, match="answered 403"):
        _submit(api, config)


def test_a_profile_of_others_is_refused(api: KfpApi, config: Path) -> None:
    api.namespaces = ("mine",)
    with pytest.raises(SubmitError, match="answered 403: you are known there, but have no permission"):
        _submit(api, config, "--namespace", "theirs")
    for _ in range(2):
        assert _submit(api, config, "--namespace", "mine").exit_code == 0
    assert len(api.pipelines) == 1 and len(api.runs) == 2


def test_an_address_that_nobody_listens_at_is_named(api: KfpApi, config: Path) -> None:
    with pytest.raises(SubmitError, match=r"^http://127\.0\.0\.1:9: not reachable"):
        _submit(api, config, host="http://127.0.0.1:9")


@pytest.mark.parametrize("answer", [(404, "<html>nothing here</html>"), (200, "<html>a page</html>"), (200, {"a": 1})])
def test_an_address_of_something_else_is_told(config: Path, answer: tuple[int, object]) -> None:
    with serving(lambda *_: answer) as url, pytest.raises(SubmitError, match="no Kubeflow Pipelines API lives there"):
        _submit(KfpApi(), config, host=url)


def test_a_refresh_has_its_reason_and_its_days(api: KfpApi, config: Path, tmp_path: Path) -> None:
    newest = datetime(2026, 3, 10, tzinfo=UTC)
    rows = [("u", f"i{day}", newest - timedelta(days=day), 1.0) for day in range(10)]
    columns = ["user_id", "item_id", "timestamp", "engagement"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "interactions.parquet")
    (tmp_path / "part.json").write_text("{}")
    parts = {"part.json": tmp_path / "part.json"}
    made = release.publish(parts, str(tmp_path / "releases"), lineage={}, measures={}, fits={}, gates={})
    url = f"file://{tmp_path / 'interactions.parquet'}"
    done = _submit(api, config, "refresh", "--interactions", url, "--name", "refresh: leak")
    assert done.exit_code == 0, done.output
    (run,) = api.runs.values()
    assert run["display_name"] == "refresh: leak"
    assert api.uploads[-1]["pipelineInfo"]["name"] == "newfound-refresh"
    parameters = run["runtime_config"]["parameters"]
    # The platform has a canary, which nothing but what people do promotes.
    assert parameters["release"] == made.id and parameters["promote"] is False
    data = json.loads(parameters["data"])["config"]
    assert (data["data"]["interactions"], data["split"]["future"], data["split"]["cut"]) == (url, 0.2, "global")
    assert parameters["recent"] == 1.0


def test_interests_are_written_for_the_release_that_serves(api: KfpApi, config: Path, tmp_path: Path) -> None:
    with pytest.raises(NewfoundError, match="no release serves"):
        _submit(api, config, "interests")
    (tmp_path / "part.json").write_text("{}")
    parts = {"part.json": tmp_path / "part.json"}
    made = release.publish(parts, str(tmp_path / "releases"), lineage={}, measures={}, fits={}, gates={})
    release.publish(parts, str(tmp_path / "releases"), lineage={"n": 2}, measures={}, fits={}, gates={}, promote=False)
    assert _submit(api, config, "interests").exit_code == 0
    (run,) = api.runs.values()
    assert run["runtime_config"]["parameters"]["release"] == made.id
