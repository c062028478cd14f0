"""The servers as the manifests start them: the same module, flags, settings and variables, answering their probes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from k8s.kustomize import ROOT
from k8s.workloads import Workload, workloads
from tests.k8s.conftest import Documents
from tests.k8s.references import environment, expanded
from tests.k8s.servers import mounted
from tests.monitoring.servers import free_port, wait_until
from tests.serving.synthetic import World, publish_world

pytestmark = pytest.mark.slow  # `make manifests` runs it


@contextmanager
def started(workload: Workload, documents: Documents, folder: Path, told: dict[str, str]) -> Iterator[str]:
    """A workload's container as a process: mounts become folders, its port a free one. Yields its address."""
    container, port = workload.pod["containers"][0], free_port()
    home = folder / workload.component
    given = environment(workload, container, documents)
    number = container["ports"][0]["containerPort"]
    places = {"/app/": f"{ROOT}/"}
    for mount in container["volumeMounts"]:
        (home / mount["name"]).mkdir(parents=True, exist_ok=True)
        places[mount["mountPath"]] = str(home / mount["name"])

    def here(text: str) -> str:
        path = next((there for there in places if text == there or text.startswith(there.rstrip("/") + "/")), None)
        return text if path is None else places[path].rstrip("/") + "/" + text[len(path) :].lstrip("/")

    known = {
        **{name: here(value) for name, value in given.items()},
        **told,
        "PATH": os.environ["PATH"],
        "NO_PROXY": "*",
    }
    args = []
    for text in container["args"]:
        if text.startswith("/config/"):
            (home / "config" / Path(text).name).write_text(mounted(workload, container, text, documents) or "")
        args.append(str(port) if text == str(number) else expanded(here(text), known))
    program = Path(sys.executable).with_name(container["command"][0])
    command = [str(program), *container["command"][1:], *args]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=known, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = container[probe].get("httpGet", {"path": "/metrics"})["path"]
            try:
                wait_until(lambda path=path: httpx.get(url + path).status_code == 200, 120, f"{probe} {path}")
            except AssertionError as error:
                raise AssertionError(f"{error}: {(home / 'log').read_text()[-3000:]}") from error
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_a_request_and_an_event_find_their_way(production: Documents, tmp_path: Path) -> None:
    """Ranker, explorer, collector and exporter, wired to each other as the manifests wire them."""
    by_name = {one.component: one for one in workloads(production)}
    publish_world(World(parents=2, clusters=6, items=6), tmp_path / "releases", tmp_path / "parts")
    told = {
        "NEWFOUND_RELEASES": str(tmp_path / "releases"),
        "NEWFOUND_FEATURES": str(tmp_path / "features"),
        "NEWFOUND_USER_KEY": "a key of the tests alone",
        "NEWFOUND_STORE": f"sqlite:///{tmp_path}/events.db",
        "NEWFOUND_REDIS": "127.0.0.1:1",  # away: histories come with the request
        "NEWFOUND_PLANNER_URL": "http://127.0.0.1:1",
    }
    with ExitStack() as running:

        def start(name: str, **more: str) -> str:
            return running.enter_context(started(by_name[name], production, tmp_path, {**told, **more}))

        ranker, exporter, collector = start("ranker"), start("exporter"), start("collector")
        explorer = by_name["explorer"]
        args = explorer.pod["containers"][0]["args"]
        args[args.index("--predictor_host") + 1] = ranker.removeprefix("http://")  # what KServe's controller adds
        (path,) = [
            "/" + one["value"].split("/", 3)[3]
            for one in explorer.pod["containers"][0]["env"]
            if one["name"] == "NEWFOUND_COLLECTOR_URL"
        ]
        asked = start("explorer", NEWFOUND_COLLECTOR_URL=collector + path)
        body = {"instances": [{"history": ["i0-0", "i1-0"], "k": 4, "seed": 1}]}
        answer = httpx.post(f"{asked}/v1/models/newfound:predict", json=body, timeout=20)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"][0]["items"]) == 4
        stored = 'newfound_collector_events_total{outcome="stored",table="recommendations"} 1.0'
        wait_until(lambda: stored in httpx.get(f"{collector}/metrics").text, 30, "what was shown, at the collector")
        assert "newfound_request_seconds_count" in httpx.get(f"{asked}/metrics").text
        assert httpx.get(f"{exporter}/metrics").status_code == 200


def test_evidently_shows_what_the_jobs_write_and_changes_nothing(production: Documents, tmp_path: Path) -> None:
    """It is there before the first report, and takes the workspace up once a job has made it."""
    from evidently.ui.workspace import Workspace

    (pages,) = [one for one in workloads(production) if one.component == "pages"]
    (mount,) = [one for one in pages.containers[0]["volumeMounts"] if one["mountPath"] == "/reports"]
    assert mount["readOnly"] is True
    with started(pages, production, tmp_path, {}) as url:
        folder = tmp_path / "pages" / "reports" / "workspace"
        Workspace.create(str(folder)).create_project("newfound")

        def files() -> dict[str, bytes]:
            return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

        before = files()
        wait_until(lambda: httpx.get(f"{url}/api/projects").status_code == 200, 30, "the workspace")
        assert [one["name"] for one in httpx.get(f"{url}/api/projects").json()] == ["newfound"]
        assert before and files() == before
