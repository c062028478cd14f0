"""Runs go on where they stopped, against a Kubeflow Pipelines API on loopback.

A step's retries reach Argo without a policy (kubeflow/pipelines, backend/src/v2/compiler/argocompiler/container.go,
getTaskRetryStrategyFromInput). Argo's own default tries failures again (argoproj/argo-workflows,
pkg/apis/workflow/v1alpha1/workflow_types.go, RetryPolicyActual), and a pod that is gone is an error
(workflow/controller/operator.go, podReconciliation). Since June 2026 KFP's own installation merges another default
into every step: errors, and no failures (manifests/kustomize/third-party/argo/base/
workflow-controller-configmap-patch.yaml).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipelines.__main__ import app
from pipelines.kubeflow import Access, SubmitError
from pipelines.resuming import resume
from tests.pipelines.kfp_api import KfpApi, serving

LOST = {"build-clusters": ("SUCCEEDED", ""), "evaluate": ("FAILED", "pod deleted")}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KfpApi]:
    """Two runs of one pipeline and one of another, all of which failed when their pods went."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NEWFOUND_KFP_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH", "NEWFOUND_KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    api = KfpApi()
    api.looks, api.ends = 0, ("FAILED", LOST)
    api.experiments["place"] = {"experiment_id": "place", "display_name": "newfound"}
    for number, pipeline in enumerate(("training", "batch", "training")):
        reference = {"pipeline_id": pipeline, "pipeline_version_id": "one"}
        run = {"run_id": f"run-{number}", "display_name": f"{pipeline} {number}", "experiment_id": "place"}
        created = {"created_at": datetime.now(UTC).isoformat(), "pipeline_version_reference": reference}
        api.runs[f"run-{number}"] = {**run, **created}
    with serving(api.answer) as url:
        api.url = url
        yield api


def _resumed(api: KfpApi) -> list[str]:
    return [one.rsplit("/", 1)[1].removesuffix(":retry") for one in api.seen if one.endswith(":retry")]


def _resume(api: KfpApi, **changes: object) -> list[str]:
    given = {"since": datetime.now(UTC) - timedelta(days=1), "times": 3, **changes}
    return list(resume(Access(api.url), "newfound", **given))  # type: ignore[arg-type]


def test_the_newest_run_of_each_pipeline_goes_on(api: KfpApi) -> None:
    assert _resume(api) == ["training 2: goes on (evaluate)", "batch 1: goes on (evaluate)"]
    assert _resumed(api) == ["run-2", "run-1"]


def test_a_verdict_is_no_accident(api: KfpApi) -> None:
    api.ends = ("FAILED", {"check-gates": ("FAILED", "recall_over_chance")})
    assert _resume(api) and _resumed(api) == []


def test_what_fails_again_and_again_is_left(api: KfpApi) -> None:
    api.failures = 4
    said = _resume(api)
    assert "failed 4 times" in said[0] and _resumed(api) == []
    assert _resume(api, times=4) and _resumed(api) == ["run-2", "run-1"]


@pytest.mark.parametrize("state", ["SUCCEEDED", "RUNNING", "CANCELED"])
def test_what_did_not_fail_is_left(api: KfpApi, state: str) -> None:
    api.ends = (state, {})
    assert _resume(api) == [] and _resumed(api) == []


def test_old_runs_are_left(api: KfpApi) -> None:
    assert _resume(api, since=datetime.now(UTC) + timedelta(minutes=1)) == []


def test_an_experiment_that_is_not_there_is_named(api: KfpApi) -> None:
    with pytest.raises(SubmitError, match="no experiment 'other'"):
        list(resume(Access(api.url), "other", since=datetime.now(UTC), times=1))


def test_the_command(api: KfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr("pipelines.submission.console", Console(file=said))
    assert CliRunner().invoke(app, ["resume", "--host", api.url]).exit_code == 0
    assert "training 2: goes on (evaluate)" in said.getvalue()
