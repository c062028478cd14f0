"""Starting: nothing is ready before it is, and `make serve` brings everything up, keeps it up, and takes it down."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.local.processes import Service, free_port
from tests.serving import store
from tests.serving.synthetic import World, histories, history_table, publish_with_planner, publish_world

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


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        first = free_port()
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except (OSError, OverflowError):
            continue


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """`make serve` over a release with a planner and a feature store."""
    root = publish_with_planner(WORLD, tmp_path)
    store.write_sources(tmp_path / "features", history_table(histories(WORLD, 5, 30)), [])
    store.fill(tmp_path / "features")
    port = free_ports(6)
    command = [sys.executable, "-m", "serving.local.__main__", "--releases", str(root), "--planner", "local"]
    command += ["--features", str(tmp_path / "features"), "--port", str(port), "--work", str(tmp_path / "work")]
    output = (tmp_path / "output").open("w")
    process = subprocess.Popen(command, cwd=store.ROOT, stdout=output, stderr=output, text=True)
    try:
        yield process, port, tmp_path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        output.close()


def test_make_serve_brings_everything_up_keeps_it_up_and_takes_it_down(launched):
    process, port, folder = launched
    url = f"http://127.0.0.1:{port}"
    until(lambda: process.poll() is not None or "end with Ctrl-C" in (folder / "output").read_text(), 120)
    text = (folder / "output").read_text()
    assert re.search(r"ready after \d+\.\d s: ", text), text
    until(lambda: answers(f"http://127.0.0.1:{port + 3}/health"))

    def slate(**instance: object) -> dict:
        body = {"instances": [{"k": 6, "novel": 2, "seed": 1, "deadline_ms": 3000, **instance}]}
        return httpx.post(f"{url}/v1/models/newfound:predict", json=body, timeout=20).json()["predictions"][0]

    until(lambda: slate(user_id="u3")["degraded"] == [])
    assert {one["slot"] for one in slate(user_id="u3")["items"]} == {"novel", "familiar"}
    until(lambda: "planner" in {one["reason"] for one in slate(history=["i5.0"])["items"]})
    assert httpx.get(f"{url}/page").status_code == 200
    assert httpx.get(f"{url}/page/users.json").json()["users"] == [f"u{user}" for user in range(5)]

    killed = int(subprocess.check_output(["pgrep", "-f", f"serving.ranker .*--http_port {port + 2}"], text=True))
    os.kill(killed, signal.SIGKILL)
    until(lambda: slate(user_id="u3")["degraded"] == ["ranker"])
    assert httpx.get(f"{url}/v2/models/newfound/ready").status_code == 200, "it still answers"
    until(lambda: slate(user_id="u3")["degraded"] == [])
    assert "ranker ended; started again" in (folder / "output").read_text()

    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    for one in range(6):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port + one)) != 0, "nothing is left behind"
