"""Gateway, explorer, ranker and planner behind a real Envoy that is told what the production overlay says; Prometheus
scrapes through it, and tells Alertmanager.

The servers are started by hand here; tests/k8s/test_processes.py starts them as the manifests do.
"""

from __future__ import annotations

import copy
import shutil
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from components._canary import canary_name, canary_of, weights_of
from k8s.kustomize import ROOT, documents
from k8s.workloads import of_kind, workloads
from newfound.release import store as release
from serving.local.processes import Service, free_port
from tests.chain.certificates import Authority, Issuer
from tests.chain.envoy import GATEWAY, Mesh, Place, configuration, write
from tests.k8s.mesh import UnknownField
from tests.monitoring.servers import wait_until
from tests.release.gates import HELD
from tests.serving.synthetic import World, write_planner, write_release

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # `make chains` runs it
SETTINGS = {"deadline_ms": 5000, "planner_ms": 3000, "ranker_ms": 3000, "breaker_open_ms": 200}
HOST, PREDICT = "newfound.example.com", "/v1/models/newfound:predict"
BODY = {"instances": [{"history": [{"item": "i5.0"}, {"item": "i5.1"}], "k": 6, "novel": 2}]}
Documents = list[dict[str, Any]]


@dataclass
class Chain:
    """What runs, and how it is reached."""

    gateway: int
    places: dict[str, Place]
    authority: Authority
    issuer: Issuer
    issued_by: str
    canary: str
    folder: Path

    def ask(self, token: str | None, path: str = PREDICT, host: str = HOST) -> httpx.Response:
        """A request at the gateway."""
        context = ssl.create_default_context(cafile=str(self.authority.root))
        headers = {"Host": host, **({"Authorization": f"Bearer {token}"} if token else {})}
        with httpx.Client(verify=context, timeout=20, trust_env=False) as client:
            url, more = f"https://127.0.0.1:{self.gateway}{path}", {"sni_hostname": HOST}
            return client.post(url, json=BODY, headers=headers, extensions=more)

    def token(self) -> str:
        """One that is let in."""
        return self.issuer.token(self.issued_by, "newfound")

    def call(self, owner: str, principal: str | None, method: str, path: str) -> int:
        """The status with which a sidecar answers who comes straight to it, with an identity or in plain."""
        url = f"{'http' if principal is None else 'https'}://127.0.0.1:{self.places[owner].sidecar}{path}"
        verify: ssl.SSLContext | bool = False
        if principal is not None:
            verify = ssl.create_default_context(cafile=str(self.authority.root))
            verify.check_hostname = False  # SPIFFE names no host
            if principal:
                verify.load_cert_chain(*map(str, self.authority.issue(principal)))
        with httpx.Client(verify=verify, timeout=20, trust_env=False) as client:
            return client.request(method, url, json=BODY if method == "POST" else None).status_code


def _with_canary(production: Documents, canary: str) -> Documents:
    """Production after `deploy_release`, with half of the requests for the canary."""
    after = copy.deepcopy(production)
    made = [canary_of(one, canary) for one in of_kind(production, "InferenceService")]
    for one in made:
        one["metadata"]["namespace"] = "newfound"
    (route,) = of_kind(after, "HTTPRoute")
    served = {**route, "metadata": {**route["metadata"], "resourceVersion": "1"}}
    route["spec"]["rules"] = weights_of(served, canary, 50)["spec"]["rules"]
    return [*after, *made]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    root = folder / "releases"
    parts = write_release(World(clusters=24, holes=40), folder / "parts")
    parts["planner"] = write_planner(folder / "parts")
    record: dict[str, Any] = {"measures": {}, "fits": {}, "gates": HELD}
    release.publish(parts, str(root), lineage={}, **record)
    canary = release.publish(parts, str(root), lineage={"salt": "two"}, promote=False, **record).id
    production = _with_canary(documents(ROOT / "k8s" / "overlays" / "production"), canary)
    running = {one.owner: one for one in workloads(production) if one.component in ("explorer", "ranker", "planner")}
    places = {owner: Place(one, free_port(), free_port()) for owner, one in running.items()}
    second = f"InferenceService/{canary_name('newfound', canary)}"
    others = f"InferenceService/{canary_name('newfound-planner', canary)} predictor"
    places.pop(others)  # one planner is enough: the canary's explorer goes on without
    first, planner = "InferenceService/newfound", "InferenceService/newfound-planner predictor"
    pinned = canary_name("newfound", canary)
    outbound = {
        (f"{first} transformer", "newfound-predictor", 80): free_port(),
        (f"{first} transformer", "newfound-planner-predictor", 80): free_port(),
        (f"{second} transformer", f"{pinned}-predictor", 80): free_port(),
    }
    authority, issuer = Authority(folder / "certificates"), Issuer()
    (rule,) = next(iter(of_kind(production, "RequestAuthentication")))["spec"]["jwtRules"]
    mesh = Mesh(production, places, authority, {rule["jwksUri"]: issuer.jwks()})
    gateway, admin = free_port(), free_port()
    config = write(folder / "envoy.json", configuration(mesh, gateway, outbound, admin))
    (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    envoy = Service(
        "envoy",
        [
            str(Path(sys.executable).with_name("envoy")),
            "-c",
            str(config),
            "--concurrency",
            "1",
            "--base-id",
            str(admin),
        ],
        folder,
        f"http://127.0.0.1:{admin}/ready",
    )
    with ExitStack() as stack:

        def start(owner: str, module: str, *arguments: str, ready: str) -> Service:
            port = places[owner].process
            given = ["--releases", str(root), "--host", "127.0.0.1", "--http_port", str(port), *arguments]
            name = owner.replace("/", "-").replace(" ", "-")
            made = Service.module(
                name, module, given, folder, f"http://127.0.0.1:{port}{ready}", {"OMP_NUM_THREADS": "1"}
            )
            stack.callback(made.start().stop)
            return made

        model = ("--model_name", "newfound", "--enable_grpc", "false", "--settings", str(folder / "settings.yaml"))
        is_ready = "/v2/models/newfound/ready"
        waiting = [envoy.start(), start(planner, "serving.planner", ready="/health")]
        stack.callback(envoy.stop)
        for pair, pin in ((first, ()), (second, ("--release", canary))):
            ranker, explorer = f"{pair} predictor", f"{pair} transformer"
            waiting.append(start(ranker, "serving.ranker", *model, *pin, ready=is_ready))
            ways = {service: port for (owner, service, _), port in outbound.items() if owner == explorer}
            own = [f"--{name}" for name in ("predictor_host", "planner_url")]
            to_ranker = next(port for service, port in ways.items() if "planner" not in service)
            more = [own[0], f"127.0.0.1:{to_ranker}", "--spool", str(folder / f"spool-{len(waiting)}"), *pin]
            if "newfound-planner-predictor" in ways:
                more += [own[1], f"http://127.0.0.1:{ways['newfound-planner-predictor']}"]
            waiting.append(start(explorer, "serving.explorer", *model, *more, ready=is_ready))
        for one in waiting:
            one.wait()
        yield Chain(gateway, places, authority, issuer, rule["issuer"], canary, folder)


FIRST, RANKER = "InferenceService/newfound transformer", "InferenceService/newfound predictor"


def test_a_request_goes_all_the_way_and_weights_shift_it(chain: Chain) -> None:
    """Half for each release; the stable pair asks ranker and planner by its own identity."""
    slates = []
    for _ in range(24):
        answer = chain.ask(chain.token())
        assert answer.status_code == 200, answer.text
        slates.append(answer.json()["predictions"][0])
    served = [slate["release"] for slate in slates]
    assert 3 <= served.count(chain.canary) <= 21 and len(set(served)) == 2
    assert all("ranker" not in slate["degraded"] for slate in slates)
    stable = next(slate for slate in slates if slate["release"] != chain.canary)
    assert "planner" not in stable["degraded"]
    text = httpx.get(f"http://127.0.0.1:{chain.places[FIRST].sidecar}/metrics", trust_env=False).text
    assert 'newfound_answers_total{source="planner"}' in text


def test_who_has_no_token_or_anothers_is_refused(chain: Chain) -> None:
    assert chain.ask(None).status_code == 403
    assert chain.ask(chain.issuer.token("https://elsewhere.example.com", "newfound")).status_code == 401
    assert chain.ask(chain.issuer.token(chain.issued_by, "another")).status_code == 403
    assert chain.ask(Issuer().token(chain.issued_by, "newfound")).status_code == 401
    assert chain.ask("nonsense").status_code == 401


def test_other_ways_lead_nowhere(chain: Chain) -> None:
    assert chain.ask(chain.token(), "/metrics").status_code == 403
    assert chain.ask(chain.token(), "/v2/models/newfound/ready").status_code == 403
    assert chain.ask(chain.token(), host="elsewhere.example.com").status_code in (403, 404)


def test_identities_reach_what_is_theirs(chain: Chain) -> None:
    explorer, ranker = (chain.places[owner].principal for owner in (FIRST, RANKER))
    assert chain.call(FIRST, GATEWAY, "POST", PREDICT) == 200
    assert chain.call(FIRST, ranker, "POST", PREDICT) == 403
    assert chain.call(RANKER, GATEWAY, "POST", PREDICT) == 403
    assert chain.call(RANKER, explorer, "GET", "/releases") == 200
    assert chain.call(RANKER, explorer, "GET", "/v2/models/newfound/ready") == 403


def test_without_an_identity_metrics_are_all_there_is(chain: Chain) -> None:
    for owner in (FIRST, RANKER):
        assert chain.call(owner, None, "GET", "/metrics") == 200
        assert chain.call(owner, None, "POST", PREDICT) == 403
    with pytest.raises(httpx.HTTPError):  # mutual TLS without a certificate: no connection
        chain.call(FIRST, "", "GET", "/metrics")


@pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("prometheus-alertmanager") is None,
    reason="not installed (apt-get install prometheus prometheus-alertmanager)",
)
def test_prometheus_scrapes_through_it_and_alertmanager_has_the_runbook(chain: Chain) -> None:
    """The ServiceMonitor's labels, the PrometheusRule's rules; an alert's patience alone is left out."""
    production = documents(ROOT / "k8s" / "overlays" / "production")
    (monitor,) = of_kind(production, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    (kept,) = monitor["spec"]["targetLabels"]
    (rules,) = of_kind(production, "PrometheusRule")
    told = copy.deepcopy(rules["spec"])
    for rule in told["groups"][0]["rules"]:
        rule["for"] = "0s"
    (chain.folder / "rules.yaml").write_text(yaml.safe_dump(told))
    targets = [
        {
            "targets": [f"127.0.0.1:{chain.places[owner].sidecar}"],
            "labels": {"namespace": "newfound", kept.replace(".", "_").replace("/", "_"): component},
        }
        for owner, component in ((FIRST, "explorer"), (RANKER, "ranker"))
    ]
    port, manager = free_port(), free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(chain.folder / "rules.yaml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
        "scrape_configs": [
            {"job_name": "newfound", "metrics_path": endpoint["path"], "static_configs": targets},
        ],
    }
    (chain.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (chain.folder / "alertmanager.yaml").write_text(
        yaml.safe_dump({"route": {"receiver": "x"}, "receivers": [{"name": "x"}]})
    )
    alerts = Service(
        "alertmanager",
        ["prometheus-alertmanager", f"--config.file={chain.folder}/alertmanager.yaml", "--cluster.listen-address="]
        + [f"--storage.path={chain.folder}/alerts", f"--web.listen-address=127.0.0.1:{manager}"],
        chain.folder,
        f"http://127.0.0.1:{manager}/-/ready",
    )
    prometheus = Service(
        "prometheus",
        ["prometheus", f"--config.file={chain.folder}/prometheus.yaml", f"--storage.tsdb.path={chain.folder}/tsdb"]
        + [f"--web.listen-address=127.0.0.1:{port}"],
        chain.folder,
        f"http://127.0.0.1:{port}/-/ready",
    )
    with ExitStack() as stack:
        for one in (alerts, prometheus):
            stack.callback(one.start().stop)
            one.wait()

        def get(url: str, **params: str) -> Any:
            return httpx.get(url, params=params, trust_env=False).json()

        def up() -> bool:
            asked = get(f"http://127.0.0.1:{port}/api/v1/query", query="sum by (app_kubernetes_io_component) (up)")
            found = {one["metric"]["app_kubernetes_io_component"]: one["value"][1] for one in asked["data"]["result"]}
            return found == {"explorer": "1", "ranker": "1"}

        wait_until(up, 20, "two targets that answer")
        chain.ask(chain.token())

        def fired() -> bool:
            found = get(f"http://127.0.0.1:{manager}/api/v2/alerts")
            return any(one["labels"]["alertname"] == "NewfoundCollectorGone" for one in found)

        wait_until(fired, 30, "the alert that no collector is scraped")
        (alert,) = [
            one
            for one in get(f"http://127.0.0.1:{manager}/api/v2/alerts")
            if one["labels"]["alertname"] == "NewfoundCollectorGone"
        ]
        assert alert["annotations"]["runbook_url"].endswith("/docs/runbooks/collector-gone.md")
        assert alert["labels"]["namespace"] == "newfound" and alert["status"]["state"] == "active"


@pytest.mark.parametrize(
    ("kind", "place", "field"),
    [
        ("HTTPRoute", ("spec", "rules", 0), "filters"),
        ("HTTPRoute", ("spec", "rules", 0, "backendRefs", 0), "filters"),
        ("Gateway", ("spec", "listeners", 0, "tls"), "options"),
        ("RequestAuthentication", ("spec", "jwtRules", 0), "fromCookies"),
        ("AuthorizationPolicy", ("spec",), "provider"),
        ("PeerAuthentication", ("spec",), "mtlsMode"),
    ],
)
def test_a_field_that_is_not_known_is_an_error(kind: str, place: tuple[Any, ...], field: str, tmp_path: Path) -> None:
    changed = documents(ROOT / "k8s" / "overlays" / "production")
    part: Any = of_kind(changed, kind)[-1]
    for key in place:
        part = part[key]
    part[field] = []
    running = {one.owner: one for one in workloads(changed) if one.component == "explorer"}
    (rule,) = of_kind(changed, "RequestAuthentication")[0]["spec"]["jwtRules"]
    places = {owner: Place(one, 1, 2) for owner, one in running.items()}
    mesh = Mesh(changed, places, Authority(tmp_path / "certificates"), {rule["jwksUri"]: "{}"})
    with pytest.raises(UnknownField, match=field):
        configuration(mesh, 3, {}, 4)
