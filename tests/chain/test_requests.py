"""Explorers, rankers and a planner behind a real Envoy that is told what the production overlay says; Prometheus
scrapes through it, and tells Alertmanager.

The servers are started by hand here; tests/k8s/test_processes.py starts them as the manifests do.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from components._canary import canary_name
from k8s.kustomize import ROOT, documents
from k8s.workloads import of_kind, workloads
from newfound.release import store as release
from serving.local.processes import Service, free_port
from tests.chain.envoy import Place
from tests.chain.running import PREDICT, Front, envoy
from tests.k8s.canary import with_canary
from tests.k8s.conftest import Documents
from tests.monitoring.servers import wait_until
from tests.release.gates import HELD
from tests.serving.synthetic import World, write_planner, write_release

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # `make chains` runs it
SETTINGS = {"deadline_ms": 5000, "planner_ms": 3000, "ranker_ms": 3000, "breaker_open_ms": 200}
FIRST, RANKER = "InferenceService/newfound transformer", "InferenceService/newfound predictor"
PLANNER = "InferenceService/newfound-planner predictor"


@pytest.fixture(scope="module")
def production() -> Documents:
    return documents(ROOT / "k8s" / "overlays" / "production")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a release that is current and one that is not, whose id is given too."""
    folder = tmp_path_factory.mktemp("releases")
    parts = write_release(World(clusters=24, holes=40), folder / "parts")
    parts["planner"] = write_planner(folder / "parts")
    record: dict[str, Any] = {"measures": {}, "fits": {}, "gates": HELD}
    root = folder / "releases"
    release.publish(parts, str(root), lineage={}, **record)
    return root, release.publish(parts, str(root), lineage={"salt": "two"}, promote=False, **record).id


@pytest.fixture(scope="module")
def chain(
    production: Documents, releases: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """Two pairs, each of explorer and ranker, half of the requests for each; the canary's explorer has no planner."""
    folder, (root, canary) = tmp_path_factory.mktemp("chain"), releases
    deployed = with_canary(production, canary, 50)
    second = canary_name("newfound", canary)
    left_out = f"InferenceService/{canary_name('newfound-planner', canary)} predictor"
    places = {
        one.owner: Place(one, free_port(), free_port())
        for one in workloads(deployed)
        if one.component in ("explorer", "ranker", "planner") and one.owner != left_out
    }
    pinned = f"InferenceService/{second} transformer"
    ways = {
        (FIRST, "newfound-predictor", 80): free_port(),
        (FIRST, "newfound-planner-predictor", 80): free_port(),
        (pinned, f"{second}-predictor", 80): free_port(),
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    model = ["--model_name", "newfound", "--enable_grpc", "false", "--settings", str(folder / "settings.yaml")]
    asks = {
        owner: ["--predictor_host", f"127.0.0.1:{port}"] for (owner, to, _), port in ways.items() if "plan" not in to
    }
    asks[FIRST] += ["--planner_url", f"http://127.0.0.1:{ways[FIRST, 'newfound-planner-predictor', 80]}"]
    with ExitStack() as stack:
        front = stack.enter_context(envoy(deployed, places, folder, ways))
        started = []
        for owner, place in places.items():
            given = ["--releases", str(root), "--host", "127.0.0.1", "--http_port", str(place.process)]
            if owner != PLANNER:
                given += model + (["--release", canary] if second in owner else [])
            if owner in asks:
                given += [*asks[owner], "--spool", str(folder / f"spool-{place.process}")]
            ready = "/health" if owner == PLANNER else "/v2/models/newfound/ready"
            where, name = f"http://127.0.0.1:{place.process}{ready}", owner.replace("/", "-").replace(" ", "-")
            module = f"serving.{place.workload.component}"
            made = Service.module(name, module, given, folder, where, {"OMP_NUM_THREADS": "1"})
            stack.callback(made.start().stop)
            started.append(made)
        for one in started:
            one.wait()
        yield front


def test_a_request_goes_all_the_way_and_weights_shift_it(chain: Front, releases: tuple[Path, str]) -> None:
    """Half for each release; the stable pair asks ranker and planner by its own identity."""
    _, canary = releases
    wait_until(lambda: _is_whole(chain.ask(chain.token()), but=canary), 60, "an answer in full service")
    slates = []
    for _ in range(24):
        answer = chain.ask(chain.token())
        assert answer.status_code == 200, answer.text
        slates.append(answer.json()["predictions"][0])
    served = [slate["release"] for slate in slates]
    assert 3 <= served.count(canary) <= 21 and len(set(served)) == 2
    assert all("ranker" not in slate["degraded"] for slate in slates)
    text = httpx.get(f"http://127.0.0.1:{chain.places[FIRST].sidecar}/metrics", trust_env=False).text
    assert 'newfound_answers_total{source="planner"}' in text


def _is_whole(answer: httpx.Response, but: str) -> bool:
    """Whether it is the stable pair's, and neither ranker nor planner was still warming up."""
    slate = answer.json()["predictions"][0] if answer.status_code == 200 else {"release": but}
    return slate["release"] != but and not {"ranker", "planner"} & set(slate["degraded"])


def test_the_servers_answer_whom_the_rules_admit(chain: Front) -> None:
    """tests/chain/test_envoy.py asks everything of everybody; here are answers of the servers themselves."""
    explorer = chain.places[FIRST].principal
    assert chain.ask(None).status_code == 403
    assert chain.call(RANKER, explorer, "GET", "/releases") == 200
    assert chain.call(RANKER, explorer, "GET", "/v2/models/newfound/ready") == 403
    assert chain.call(RANKER, None, "GET", "/metrics") == 200
    assert chain.call(RANKER, None, "POST", PREDICT) == 403


@pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("prometheus-alertmanager") is None,
    reason="not installed (apt-get install prometheus prometheus-alertmanager)",
)
def test_prometheus_scrapes_through_it_and_alertmanager_has_the_runbook(
    chain: Front, production: Documents, tmp_path: Path
) -> None:
    """The ServiceMonitor's path and labels, the PrometheusRule's rules; an alert's patience alone is left out."""
    with ExitStack() as stack:
        alertmanager = _alertmanager(tmp_path)
        prometheus = _prometheus(chain, production, alertmanager, tmp_path)
        for one in (alertmanager, prometheus):
            stack.callback(one.start().stop)
            one.wait()

        def up() -> bool:
            query = {"query": "sum by (app_kubernetes_io_component) (up)"}
            found = _get(prometheus, "/api/v1/query", query)["data"]["result"]
            values = {one["metric"]["app_kubernetes_io_component"]: one["value"][1] for one in found}
            return values == {"explorer": "1", "ranker": "1"}

        def gone() -> list[Any]:
            found = _get(alertmanager, "/api/v2/alerts")
            return [one for one in found if one["labels"]["alertname"] == "NewfoundCollectorGone"]

        wait_until(up, 20, "two targets that answer")
        chain.ask(chain.token())
        wait_until(gone, 60, "the alert that no collector is scraped")
        (alert,) = gone()
        page = alert["annotations"]["runbook_url"].removeprefix("https://newfound.example.com/")
        assert page == "docs/runbooks/collector-gone.md" and (ROOT / page).is_file()
        assert alert["labels"]["namespace"] == "newfound" and alert["status"]["state"] == "active"


def _get(service: Service, path: str, params: dict[str, str] | None = None) -> Any:
    return httpx.get(str(service.ready).removesuffix("/-/ready") + path, params=params, trust_env=False).json()


def _alertmanager(folder: Path) -> Service:
    told, port = folder / "alertmanager.yaml", free_port()
    told.write_text(yaml.safe_dump({"route": {"receiver": "x"}, "receivers": [{"name": "x"}]}))
    command = ["prometheus-alertmanager", f"--config.file={told}", "--cluster.listen-address="]
    command += [f"--storage.path={folder}/alerts", f"--web.listen-address=127.0.0.1:{port}"]
    return Service("alertmanager", command, folder, f"http://127.0.0.1:{port}/-/ready")


def _prometheus(chain: Front, production: Documents, alertmanager: Service, folder: Path) -> Service:
    (monitor,), (rules,) = of_kind(production, "ServiceMonitor"), of_kind(production, "PrometheusRule")
    (endpoint,), (kept,) = monitor["spec"]["endpoints"], monitor["spec"]["targetLabels"]
    spec = copy.deepcopy(rules["spec"])
    for rule in spec["groups"][0]["rules"]:
        rule["for"] = "0s"
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    label = kept.replace(".", "_").replace("/", "_")
    targets = [
        {
            "targets": [f"127.0.0.1:{chain.places[owner].sidecar}"],
            "labels": {"namespace": "newfound", label: chain.places[owner].workload.component},
        }
        for owner in (FIRST, RANKER)
    ]
    to = str(alertmanager.ready).removeprefix("http://").removesuffix("/-/ready")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yaml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [to]}]}]},
        "scrape_configs": [{"job_name": "newfound", "metrics_path": endpoint["path"], "static_configs": targets}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb"]
    # The first notice goes out before Prometheus knows its Alertmanager, and is lost; the next is a minute later.
    command += [f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=2s"]
    return Service("prometheus", command, folder, f"http://127.0.0.1:{port}/-/ready")
