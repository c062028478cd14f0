"""Serving's containers as the manifests start them: read-only, no capabilities, not root. `make test-images`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from newfound.release.store import publish
from serving.local.processes import free_port
from tests.images.conftest import TAG
from tests.release.gates import HELD
from tests.serving import store
from tests.serving.conftest import write_features
from tests.serving.synthetic import World, history_table, publish_world

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s" / "base"
UP_S = 300.0
USER = 1000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def container_of(file: str, kind: str, *keys: str | int) -> dict[str, Any]:
    """A container of a manifest."""
    documents = yaml.safe_load_all((BASE / file).read_text(encoding="utf-8"))
    found: Any = next(one for one in documents if one["kind"] == kind)
    for key in keys:
        found = found[key]
    return dict(found)


@dataclass
class Pod:
    """A container that runs as a pod of the cluster would, on the host's network."""

    container: Any
    manifest: dict[str, Any]
    url: str

    def probe(self, name: str) -> int:
        """The status that kubelet would see."""
        return httpx.get(self.url + self.manifest[name]["httpGet"]["path"], timeout=10).status_code

    def wait(self) -> float:
        """Seconds until the start-up and readiness probes pass."""
        began = time.monotonic()
        while True:
            self.container.reload()
            assert self.container.status == "running", self.container.logs().decode()[-4000:]
            with contextlib.suppress(httpx.HTTPError):
                if self.probe("startupProbe") == 200 and self.probe("readinessProbe") == 200:
                    return time.monotonic() - began
            assert time.monotonic() - began < UP_S, self.container.logs().decode()[-4000:]
            time.sleep(0.2)


@dataclass
class Pods:
    """Where the pods read from."""

    client: Any
    folder: Path

    @contextlib.contextmanager
    def pod(
        self, manifest: dict[str, Any], port: int, flag: str, environment: dict[str, str], config: Path, *more: str
    ) -> Iterator[Pod]:
        """Runs a manifest's container with the port, the variables and the volumes of this machine."""
        from docker.types import Mount

        context = manifest["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        arguments = [one.replace("$(NEWFOUND_RELEASES)", "/releases") for one in manifest["args"]]
        arguments[arguments.index(flag) + 1] = str(port)
        writable = {
            one["mountPath"]: "uid=1000,gid=1000" for one in manifest["volumeMounts"] if not one.get("readOnly")
        }
        container = self.client.containers.run(
            f"{manifest['image']}:{TAG}",
            [*manifest["command"], *arguments, *more],
            detach=True,
            network_mode="host",
            read_only=context["readOnlyRootFilesystem"],
            cap_drop=context["capabilities"]["drop"],
            security_opt=["no-new-privileges"],
            user=f"{USER}:{USER}",
            tmpfs=writable,
            environment={"HOME": "/tmp", "NEWFOUND_USER_KEY": "a key of the tests alone", **environment},
            mounts=[
                Mount("/releases", str(self.folder / "releases"), type="bind", read_only=True),
                Mount("/features", str(self.folder / "features"), type="bind", read_only=True),
                Mount("/config", str(config), type="bind", read_only=True),
            ],
        )
        try:
            yield Pod(container, manifest, f"http://127.0.0.1:{port}")
        finally:
            container.remove(force=True)


@pytest.fixture(scope="module")
def pods(docker_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Pods:
    folder, world = tmp_path_factory.mktemp("pods"), World(holes=40)
    publish_world(world, folder / "releases", folder / "parts")
    store.write_sources(folder / "features", history_table(write_features(folder / "features", world)), [])
    store.fill(folder / "features")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Pods(docker_client, folder)


@pytest.fixture(scope="module")
def ranker(pods: Pods) -> Iterator[Pod]:
    manifest = container_of("serving/newfound-ranker-runtime.yaml", "ServingRuntime", "spec", "containers", 0)
    with pods.pod(manifest, free_port(), "--http_port", {}, BASE / "serving") as pod:
        print(f"\nranker: its probes pass after {pod.wait():.1f} s")
        yield pod


@pytest.fixture(scope="module")
def explorer(pods: Pods, ranker: Pod) -> Iterator[Pod]:
    keys = ("spec", "transformer", "containers", 0)
    manifest = container_of("serving/newfound.yaml", "InferenceService", *keys)
    environment = {
        "NEWFOUND_FEATURES": "/features",
        "FEAST_FS_YAML_FILE_PATH": "/app/feature_repo/feature_store.yaml",
    }
    # KServe's controller adds the predictor.
    more = ("--predictor_host", ranker.url.removeprefix("http://"))
    with pods.pod(manifest, free_port(), "--http_port", environment, BASE / "serving", *more) as pod:
        print(f"\nexplorer: its probes pass after {pod.wait():.1f} s")
        yield pod


@pytest.fixture(scope="module")
def collector(pods: Pods) -> Iterator[Pod]:
    keys = ("spec", "template", "spec", "containers", 0)
    manifest = container_of("feedback/collector.yaml", "Deployment", *keys)
    environment = {
        "NEWFOUND_STORE": "sqlite:////tmp/events.db",
        "NEWFOUND_FEATURES": "/features",
        "FEAST_FS_YAML_FILE_PATH": "/app/feature_repo/feature_store.yaml",
    }
    with pods.pod(manifest, free_port(), "--port", environment, ROOT / "monitoring" / "configs") as pod:
        print(f"\ncollector: its probes pass after {pod.wait():.1f} s")
        yield pod


@pytest.fixture(scope="module")
def pages(pods: Pods) -> Iterator[Pod]:
    keys = ("spec", "template", "spec", "containers", 0)
    manifest = container_of("../components/reports-ui/pages.yaml", "Deployment", *keys)
    with pods.pod(manifest, free_port(), "--port", {}, ROOT / "monitoring" / "configs") as pod:
        print(f"\npages: its probes pass after {pod.wait():.1f} s")
        yield pod


def test_the_planner_is_fetched_before_its_engine_starts(pods: Pods, tmp_path: Path) -> None:
    """The pod's first container, out of a release that does not serve; a name that no release has is an error."""
    from docker.errors import ContainerError
    from docker.types import Mount

    (tmp_path / "planner").mkdir()
    (tmp_path / "planner" / "config.json").write_text("{}")
    told = {"lineage": {}, "measures": {}, "fits": {}, "gates": HELD, "promote": False}
    made = publish({"planner": tmp_path / "planner"}, str(pods.folder / "releases"), **told)
    keys = ("spec", "predictor", "initContainers", 0)
    manifest = container_of("serving/newfound-planner.yaml", "InferenceService", *keys)

    def run(name: str) -> str:
        values = {"$(NEWFOUND_RELEASES)": "/releases", "$(NEWFOUND_PLANNER)": name}
        said = pods.client.containers.run(
            f"{manifest['image']}:{TAG}",
            [*manifest["command"], *(values.get(one, one) for one in manifest["args"])],
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            user=f"{USER}:{USER}",
            tmpfs={"/release": "uid=1000,gid=1000", "/tmp": "uid=1000,gid=1000"},
            mounts=[Mount("/releases", str(pods.folder / "releases"), type="bind", read_only=True)],
            remove=True,
        )
        return " ".join(said.decode().split())

    assert f"in /release/{made.planner_name}/planner, every digest holds" in run(str(made.planner_name))
    with pytest.raises(ContainerError, match="no release has the planner"):
        run("0" * 16)


@pytest.mark.parametrize("name", ["ranker", "explorer", "collector", "pages"])
def test_every_probe_passes(name: str, request: pytest.FixtureRequest) -> None:
    pod: Pod = request.getfixturevalue(name)
    assert {probe: pod.probe(probe) for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "startupProbe": 200,
        "livenessProbe": 200,
        "readinessProbe": 200,
    }


@pytest.mark.parametrize("name", ["ranker", "explorer", "collector", "pages"])
def test_it_has_no_rights(name: str, request: pytest.FixtureRequest) -> None:
    """What the kernel says of the process, not what was asked for."""
    pod: Pod = request.getfixturevalue(name)
    status = pod.container.exec_run(["cat", "/proc/1/status"]).output.decode()
    said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert said["Uid"].split() == ["1000"] * 4 and said["Gid"].split() == ["1000"] * 4
    assert {said[name].strip("0") for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {""}
    assert said["NoNewPrivs"] == "1"
    for path in ("/app/new", "/opt/venv/new", "/etc/new", "/new"):
        refused = pod.container.exec_run(["python", "-c", f"open({path!r}, 'w')"])
        assert refused.exit_code != 0 and b"Read-only file system" in refused.output


def test_a_request_is_answered(explorer: Pod) -> None:
    body = {"instances": [{"user_id": "u3", "k": 8, "novel": 2}]}
    answer = httpx.post(f"{explorer.url}/v1/models/newfound:predict", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    slate = answer.json()["predictions"][0]
    assert len(slate["items"]) == 8 and slate["release"]
    assert sum(item["slot"] == "novel" for item in slate["items"]) == 2
    # The history came from Feast, the ranking from the other container: nothing was degraded.
    assert not any(word in reason for item in slate["items"] for reason in [item["reason"]] for word in ("popular",))
    times = []
    for user in range(30):
        began = time.perf_counter()
        body = {"instances": [{"user_id": f"u{user}"}]}
        assert httpx.post(f"{explorer.url}/v1/models/newfound:predict", json=body, timeout=30).status_code == 200
        times.append(time.perf_counter() - began)
    print(f"\nexplorer and ranker in containers: median of {len(times)} requests {sorted(times)[15] * 1000:.1f} ms")


def test_it_ends_when_told(pods: Pods) -> None:
    manifest = container_of("serving/newfound-ranker-runtime.yaml", "ServingRuntime", "spec", "containers", 0)
    with pods.pod(manifest, free_port(), "--http_port", {}, BASE / "serving") as pod:
        pod.wait()
        pod.container.stop(timeout=30)
        pod.container.reload()
        assert pod.container.attrs["State"]["ExitCode"] in (0, 143)
