"""What pipelines on the cluster expect of the manifests: the pair that they copy, rights, secrets, addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from k8s.kustomize import ROOT
from k8s.workloads import of_kind, services, workloads
from newfound.config import load_config
from pipelines.platform import load_platform
from tests.k8s import references, servers
from tests.k8s.canary import NAMED, with_canary
from tests.k8s.conftest import Documents
from tests.k8s.test_kserve_models import KINDS
from tests.k8s.test_kserve_models import problems as unknown_to_kserve

RELEASE = "20260101T000000-0123456789ab"
PLATFORM = ROOT / "pipelines" / "platforms" / "production.yaml"


@pytest.fixture
def deployed(production: Documents) -> Documents:
    """Production after `deploy_release`: the canary made of the pair that serves, and the weights moved."""
    return with_canary(production, RELEASE, 5)


def test_the_canary_of_the_pipeline_fits_the_manifests(deployed: Documents) -> None:
    assert references.problems(deployed) == []
    assert servers.problems(deployed) == []
    made = [one for one in workloads(deployed) if "-canary" in one.owner]
    assert {one.component for one in made} == {"explorer", "ranker", "planner"}, "and their NetworkPolicies"
    for one in of_kind(deployed, "InferenceService"):
        assert unknown_to_kserve(one, KINDS["InferenceService"]) == []


def test_every_part_of_it_serves_the_release(deployed: Documents) -> None:
    for workload in workloads(deployed):
        if "-canary" not in workload.owner:
            continue
        for container in workload.containers:
            known = references.environment(workload, container, deployed)
            args = [references.expanded(text, known) for text in container["args"]]
            named = NAMED if workload.component == "planner" else RELEASE
            assert any(named in text for text in args), (workload.owner, args)


def test_it_is_what_the_component_is(deployed: Documents, rendered: Any) -> None:
    """Both ways to a canary end in the same pods, but for how the release's id gets there."""
    by_hand = {one.owner: one for one in workloads(rendered("production with a canary")) if "-canary" in one.owner}
    for one in workloads(deployed):
        if "-canary" in one.owner:
            other = by_hand[one.owner.replace(f"-{RELEASE.rpartition('-')[2]}", "")]
            assert one.labels.keys() >= other.labels.keys() and one.component == other.component
            assert [c["name"] for c in one.containers] == [c["name"] for c in other.containers]
            assert {c["image"] for c in one.containers} == {c["image"] for c in other.containers}


def test_the_pipeline_has_the_rights_that_it_needs_and_no_others(production: Documents) -> None:
    """The calls of components/_canary.py, as verbs; its own tests make them against an API server."""
    source = (ROOT / "components" / "_canary.py").read_text(encoding="utf-8")
    calls = {
        verb for verb in ("get", "create", "replace", "patch", "delete", "list") if f".{verb}_namespaced_" in source
    }
    assert calls == {"get", "create", "patch"}
    (role,) = [one for one in of_kind(production, "Role") if one["metadata"]["name"] == "newfound-deployer"]
    granted: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for resource in rule["resources"]:
            granted.setdefault(resource, set()).update(rule["verbs"])
    assert granted == {"inferenceservices": {"get", "create"}, "httproutes": {"get", "patch"}}


def test_the_platform_names_what_is_there(production: Documents) -> None:
    platform = load_platform(PLATFORM)
    assert platform.canary is not None and platform.canary.namespace == "newfound"
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for name, secret in platform.secrets.items():
        made = [line for line in operations.split("kubectl ") if f"secret generic {secret.name} " in line]
        assert any(f"{secret.key}=" in line for line in made), f"{name}: nobody makes {secret.name}/{secret.key}"
    (settings,) = [
        one["data"]
        for one in of_kind(production, "ConfigMap")
        if one["metadata"]["name"].startswith("newfound-settings")
    ]
    assert platform.environment["NEWFOUND_FEATURES"] == settings["NEWFOUND_FEATURES"], "one feature store"


def test_studies_and_rows_go_where_the_stores_are(production: Documents) -> None:
    there = {service.name: [number for number, _, _ in service.ports] for service in services(production)}
    storage = load_config(ROOT / "pipelines" / "configs" / "production.yaml").tuning.storage
    assert storage is not None
    host = storage.split("@")[1].split("/")[0].split(":")[0]
    assert host.removesuffix(".newfound") in there and storage.endswith("/optuna")
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert 'connection="newfound-redis.newfound:6379,' in operations and 6379 in there["newfound-redis"]


def test_due_pipelines_start_with_the_repositorys_files_and_no_images(production: Documents) -> None:
    (decide,) = [one for one in workloads(production) if one.component == "decide"]
    args: list[str] = decide.containers[0]["args"]
    given: Mapping[str, str] = dict(zip(args[::2], args[1::2], strict=True))
    for flag, file in (("--pipeline-config", "configs"), ("--platform", "platforms")):
        text = servers.mounted(decide, decide.containers[0], given[flag], production)
        assert text == (ROOT / "pipelines" / file / "production.yaml").read_text()
    assert given["--submit"] == "http://ml-pipeline.kubeflow:8888"
