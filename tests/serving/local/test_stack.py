"""Starting: nothing is ready before it is, and `make serve` brings everything up, keeps it up, and takes it down."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.local.processes import Service, free_port
from tests.serving.launcher import launched_serve
from tests.serving.synthetic import World, publish_world
from tests.serving.traces import Sink, Span, whole

WORLD = World(clusters=12, holes=20)


def until(check: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.HTTPError:
        return False


def test_readiness_tells_the_truth_before_the_first_release(tmp_path):
    from kserve import InferenceGRPCClient

    root = tmp_path / "releases"
    root.mkdir()
    port, grpc = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["--releases", str(root), "--host", "127.0.0.1", "--http_port", str(port), "--grpc_port", str(grpc)]
    command += ["--model_name", "newfound", "--predictor_host", f"127.0.0.1:{free_port()}"]
    explorer = Service.module("explorer", "serving.explorer", command, tmp_path, f"{url}/").start()

    async def ready_over_grpc() -> list[bool]:
        client = InferenceGRPCClient(f"127.0.0.1:{grpc}", timeout=20)
        try:
            return [await client.is_server_ready(), await client.is_model_ready("newfound")]
        finally:
            await client.close()

    try:
        explorer.wait()
        paths = ("/v2/health/ready", "/v2/models/newfound/ready", "/v1/models/newfound")
        assert [httpx.get(url + path).status_code for path in paths] == [503] * 3
        refused = httpx.post(f"{url}/v1/models/newfound:predict", json={"instances": [{"user_id": "u"}]})
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert httpx.get(f"{url}/v2/health/live").json() == {"live": True}
        assert asyncio.run(ready_over_grpc()) == [False, False]
        publish_world(WORLD, root, tmp_path / "parts")
        until(lambda: httpx.get(f"{url}/v2/models/newfound/ready").status_code == 200)
        assert [httpx.get(url + path).status_code for path in paths] == [200] * 3
        assert asyncio.run(ready_over_grpc()) == [True, True]
    finally:
        explorer.stop()


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, Path, Sink]]:
    """`make serve` over a release with a planner and a feature store, its traces on."""
    with Sink() as sink, launched_serve(WORLD, tmp_path, sink.environment) as (process, port):
        yield process, port, tmp_path, sink


def check_trace(spans: list[Span], everything: list[Span]) -> None:
    """One request's way: each part's spans, each below the one that called it, and nobody's name in them."""
    named = {(one.service, one.name): one for one in spans}
    explorer = named["newfound-explorer", "POST /v1/models/newfound:predict"]
    ranker, planner = (
        named["newfound-ranker", "POST /v1/models/newfound:predict"],
        named["newfound-planner", "POST /v1/completions"],
    )
    by_id = {one.id: one for one in spans}

    def way(span: Span) -> list[str]:
        return [span.name, *(way(by_id[span.parent]) if span.parent in by_id else [])]

    assert way(ranker)[1:] == ["POST", "predict", explorer.name], way(ranker)
    assert way(planner)[1:] == ["POST", "preprocess", explorer.name], way(planner)
    for service in ("newfound-explorer", "newfound-ranker"):
        assert {(service, stage) for stage in ("preprocess", "predict", "postprocess")} <= set(named)
    assert not [one for one in everything if re.search(r"\bu[0-9]\b|i5\.0", str(one.attributes))]
    assert not [one for one in everything if "page" in one.name or "ready" in one.name]


def test_make_serve_brings_everything_up_keeps_it_up_and_takes_it_down(launched):
    process, port, folder, sink = launched
    url = f"http://127.0.0.1:{port}"
    until(lambda: process.poll() is not None or "end with Ctrl-C" in (folder / "output").read_text(), 120)
    text = (folder / "output").read_text()
    told = re.search(r"ready after (\d+\.\d) s: ", text)
    assert told, text
    # A service that is started anew takes as long as at first, which on a busy machine is longer than a minute.
    patience = max(60.0, 5 * float(told[1]))
    until(lambda: answers(f"http://127.0.0.1:{port + 3}/health"))

    def slate(**instance: object) -> dict:
        body = {"instances": [{"k": 6, "novel": 2, "seed": 1, "deadline_ms": 3000, **instance}]}
        return httpx.post(f"{url}/v1/models/newfound:predict", json=body, timeout=20).json()["predictions"][0]

    until(lambda: slate(user_id="u3")["degraded"] == [])
    assert {one["slot"] for one in slate(user_id="u3")["items"]} == {"novel", "familiar"}
    until(lambda: "planner" in {one["reason"] for one in slate(history=["i5.0"])["items"]})
    until(lambda: bool(whole(sink.spans)))
    check_trace(whole(sink.spans), sink.spans)
    assert httpx.get(f"{url}/page").status_code == 200
    assert httpx.get(f"{url}/page/users.json").json()["users"] == [f"u{user}" for user in range(5)]

    killed = int(subprocess.check_output(["pgrep", "-f", f"serving.ranker .*--http_port {port + 2}"], text=True))
    os.kill(killed, signal.SIGKILL)
    until(lambda: "ranker" in slate(user_id="u3")["degraded"])
    assert httpx.get(f"{url}/v2/models/newfound/ready").status_code == 200, "it still answers"
    until(lambda: slate(user_id="u3")["degraded"] == [], patience)
    assert "ranker ended; started again" in (folder / "output").read_text()

    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    for one in range(6):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port + one)) != 0, "nothing is left behind"
