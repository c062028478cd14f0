"""Manifests held against the servers' own code; and that a slip in a copy of them is caught."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from k8s.kustomize import ROOT
from k8s.workloads import of_kind, workloads
from tests.k8s import servers
from tests.k8s.conftest import Documents
from tests.k8s.mesh import rules_of
from tests.k8s.references import environment, expanded
from tests.k8s.servers import VLLM, answer, problems, vllm_takes
from tests.k8s.test_references import container

VLLM_PYTHON = ROOT / ".vllm" / "bin" / "python"


def test_servers_take_what_they_are_given(overlay: Documents) -> None:
    assert problems(overlay) == []


def test_everything_that_we_start_was_looked_at(overlay: Documents) -> None:
    looked_at = {
        one["command"][2]
        for workload in workloads(overlay)
        for one in workload.containers
        if one.get("command", ["", ""])[1] == "-m"
    }
    expected = {"serving.explorer", "serving.ranker", "monitoring", "monitoring.collector"}
    assert looked_at - expected in ({VLLM, "newfound.cli", "pipelines"}, {"serving.planner"})


def test_each_server_listens_where_its_clients_look(production: Documents) -> None:
    """Paths that one part asks of another are routes of the other."""
    (route,) = of_kind(production, "HTTPRoute")
    of_service = {"newfound-transformer": "serving.explorer", "newfound-collector": "monitoring.collector"}
    for rule in route["spec"]["rules"]:
        for match in rule["matches"]:
            module = of_service[rule["backendRefs"][0]["name"]]
            assert answer(module, match["method"], match["path"]["value"]) not in (404, 405)
    explorer = next(one for one in workloads(production) if one.component == "explorer")
    known = environment(explorer, explorer.containers[0], production)
    collector = known["NEWFOUND_COLLECTOR_URL"]
    assert answer("monitoring.collector", "POST", "/" + collector.split("/", 3)[3]) not in (404, 405)
    assert answer("serving.planner", "POST", "/v1/completions") not in (404, 405)
    assert answer("serving.explorer", "POST", "/v1/elsewhere") == 404


def test_the_mesh_lets_through_what_the_servers_have(production: Documents) -> None:
    looked_at = []
    for workload in workloads(production):
        container = workload.containers[-1]
        if container.get("command", ["", ""])[1] != "-m" or not container.get("ports"):
            continue
        module = container["command"][2]
        for rule in rules_of(production, workload) or ():
            for path in rule.paths or ():
                looked_at.append((workload.component, path))
                if (module, path) in ((VLLM, "/metrics"), ("serving.ranker", "/releases")):
                    continue  # the engine's own; and added by the ranker's `main`
                assert any(answer(module, method, path) not in (404, 405) for method in rule.methods or ()), path
    assert {component for component, _ in looked_at} == {"explorer", "ranker", "planner", "collector", "exporter"}
    assert len(looked_at) >= 11
    assert '"/releases"' in (ROOT / "serving" / "ranker" / "__main__.py").read_text()


def test_metrics_of_scaling_are_exported(production: Documents) -> None:
    """Names in KEDA's queries are names that the servers register."""
    from prometheus_client import REGISTRY

    from monitoring.collector.metrics import Metrics
    from serving import metrics  # noqa: F401  (registers)

    exported = {
        sample.name
        for registry in (REGISTRY, Metrics().registry)
        for family in registry.collect()
        for sample in [*family.samples]
    } | {f"{family.name}_count" for family in REGISTRY.collect() if family.type == "histogram"}
    text = "\n".join(map(str, [*of_kind(production, "InferenceService"), *of_kind(production, "ScaledObject")]))
    import re

    named = set(re.findall(r"\bnewfound_[a-z_]+", text))
    assert named and named <= exported
    services = set(re.findall(r'service="([a-z-]+)"', text))
    from k8s.workloads import services as all_services

    assert services <= {service.name for service in all_services(production)}


def _replace(kind: str, name: str, before: str, after: str) -> Any:
    def slip(documents: Documents) -> None:
        args = container(next(one for one in of_kind(documents, kind) if one["metadata"]["name"] == name))["args"]
        assert before in args, args
        args[args.index(before)] = after

    return slip


def _probe(kind: str, name: str, probe: str, field: str, value: Any) -> Any:
    def slip(documents: Documents) -> None:
        one = container(next(one for one in of_kind(documents, kind) if one["metadata"]["name"] == name))
        one[probe]["httpGet"][field] = value

    return slip


def _set(kind: str, name: str, field: str, value: Any) -> Any:
    def slip(documents: Documents) -> None:
        container(next(one for one in of_kind(documents, kind) if one["metadata"]["name"] == name))[field] = value

    return slip


EXPLORER, RANKER = ("InferenceService", "newfound"), ("ServingRuntime", "newfound-ranker")
ENGINE, COLLECTOR = ("ServingRuntime", "newfound-planner"), ("Deployment", "newfound-collector")
EXPORTER, REPORT = ("Deployment", "newfound-exporter"), ("CronJob", "newfound-report")


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (_replace(*EXPLORER, "--spool", "--spol"), "--spol"),
        (_replace(*EXPLORER, "--releases", "--rel"), "--rel"),  # a beginning of a flag's name is none
        (_replace(*EXPLORER, "8080", "8081"), "opens 8081"),
        (_replace(*EXPLORER, "--feast", "--feature_repo"), "--feature_repo"),
        (_replace(*EXPLORER, "/app/feature_repo", "/app/features"), "/app/features is not in the repository"),
        (_replace(*EXPLORER, "/config/serving.yaml", "/config/server.yaml"), "/config/server.yaml is in no ConfigMap"),
        (_replace(*EXPLORER, "/work/spool", "/spool"), "spool /spool cannot be written"),
        (_replace(*RANKER, "--cache", "--cach"), "--cach"),
        (_replace(*RANKER, "/work", "/config"), "cache /config cannot be written"),
        (_replace(*ENGINE, "--max-model-len=512", "--max-model-length=512"), "--max-model-length"),
        (_replace(*COLLECTOR, "--features", "--feature"), "--feature"),
        (_replace(*COLLECTOR, "8090", "8091"), "opens 8091"),
        (_replace(*COLLECTOR, "0.0.0.0", "127.0.0.1"), "listens on 127.0.0.1 alone"),
        (_replace(*EXPORTER, "--port", "--http-port"), "--http-port"),
        (_replace(*REPORT, "--reference", "--references"), "--references"),
        (_replace(*REPORT, "--window", "--windows"), "Invalid value"),  # a flag of another kind
        (_set(*REPORT, "command", ["python", "-m", "monitoring", "reports"]), "no command ['reports']"),
        (_set(*COLLECTOR, "command", ["python", "-m", "monitoring.collect"]), "no module"),
        (_probe(*EXPLORER, "readinessProbe", "path", "/v2/models/newfond/ready"), "is answered 404"),
        (_probe(*RANKER, "livenessProbe", "path", "/health"), "is answered 404"),
        (_probe(*RANKER, "livenessProbe", "port", 8081), "port 8081 is not open"),
        (_probe(*COLLECTOR, "readinessProbe", "path", "/ready"), "is answered 404"),
        (_probe(*ENGINE, "startupProbe", "path", "/healthz"), "is answered 404"),
    ],
)
def test_a_slip_is_caught(production: Documents, slip: Any, said: str) -> None:
    changed = copy.deepcopy(production)
    slip(changed)
    assert any(said in problem for problem in problems(changed)), problems(changed)


def test_a_variable_that_nobody_reads_is_caught(production: Documents) -> None:
    changed = copy.deepcopy(production)
    one = container(
        next(one for one in of_kind(changed, "Deployment") if one["metadata"]["name"].endswith("collector"))
    )
    next(variable for variable in one["env"] if variable["name"] == "NEWFOUND_STORE")["name"] = "NEWFOUND_STOR"
    found = problems(changed)
    assert any("nobody reads NEWFOUND_STOR" in text for text in found)
    assert any("monitoring.collector needs NEWFOUND_STORE" in text for text in found)


def test_a_flag_that_is_renamed_in_a_server_is_caught(production: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round: the manifests stay, the server's parser changes."""
    from serving.http.server import arguments

    def renamed() -> Any:
        parser = arguments("ranker")
        next(one for one in parser._actions if "--settings" in one.option_strings).option_strings[:] = ["--setting"]
        parser._option_string_actions["--setting"] = parser._option_string_actions.pop("--settings")
        return parser

    monkeypatch.setitem(servers._ARGPARSE, "serving.ranker", renamed)
    assert any("serving.ranker" in text and "--settings" in text for text in problems(production))


@pytest.mark.skipif(not VLLM_PYTHON.exists(), reason="vLLM is not set up here (make vllm)")
def test_vllm_itself_takes_its_flags(production: Documents) -> None:
    (engine,) = [one for one in workloads(production) if one.component == "planner"]
    one = engine.containers[-1]
    known = environment(engine, one, production)
    args = [expanded(text, known) for text in one["args"]]
    done = vllm_takes(Path(VLLM_PYTHON), args)
    assert done.returncode == 0, done.stderr[-2000:]
    assert vllm_takes(Path(VLLM_PYTHON), [*args, "--no-such-flag=1"]).returncode == 2
