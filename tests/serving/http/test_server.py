"""The server's end: SIGTERM is heard at any moment of its start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.local.processes import free_port

SIGTERM_BIT = 1 << (signal.SIGTERM - 1)
STARTING = """
import argparse, os, signal, sys
from kserve import Model
from serving.http.server import Server, arguments
from serving.settings import ServingConfig

class Answer(Model):
    def __init__(self):
        super().__init__("m")
        self.ready = True
    async def healthy(self):
        return True

async def start():
    os.kill(os.getpid(), signal.SIGTERM)

async def stop():
    print("stopped", flush=True)

port = sys.argv.pop()
told = "--releases x --host 127.0.0.1 --enable_grpc false --http_port"
options = arguments("").parse_args([*told.split(), port])
Server(options, ServingConfig()).run(Answer(), start, stop)
print("ended", flush=True)
"""


def hears_sigterm(pid: int) -> bool:
    """Whether a process has a handler for the signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) & SIGTERM_BIT)


@pytest.mark.parametrize(
    "started",
    [
        ["serving.explorer", "--releases", "{folder}", "--http_port", "{port}"],
        ["serving.ranker", "--releases", "{folder}", "--http_port", "{port}"],
        ["serving.planner", "--releases", "{folder}", "--http_port", "{port}"],
        ["monitoring.collector", "--port", "{port}"],
        ["monitoring", "exporter", "--port", "{port}"],
    ],
    ids=" ".join,
)
def test_the_first_process_of_a_container_ends_while_it_still_starts(tmp_path, started):
    """To it, a signal without a handler is no signal at all."""
    first = ["unshare", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*first, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no process namespace of its own is to be had")
    command = [*first, sys.executable, "-m", *(word.format(folder=tmp_path, port=free_port()) for word in started)]
    told = {"NEWFOUND_STORE": "postgresql+psycopg://127.0.0.1:1/nowhere", "NEWFOUND_USER_KEY": "k" * 32}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, **told})
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + 120
        while not (found := children.read_text().split()) or not hears_sigterm(int(found[0])):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.005)
        os.kill(int(found[0]), signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
    finally:
        process.kill()


def test_sigterm_while_parts_are_started_ends_the_server_in_order():
    command = [sys.executable, "-c", STARTING, str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["stopped", "ended"] and done.returncode == 0, done.stderr
