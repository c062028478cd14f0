"""Services as processes: ended with everything that they started."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from serving.local.processes import Service


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_what_a_service_started_ends_with_it(tmp_path, end):
    script = f"sleep 300 & echo $! > {tmp_path}/child; mv {tmp_path}/child {tmp_path}/started; wait"
    service = Service("engine", ["bash", "-c", script], tmp_path, ("127.0.0.1", 1)).start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = int((tmp_path / "started").read_text())
    assert alive(child)
    getattr(service, end)()
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_service_that_ends_at_once_is_told_of_with_its_log(tmp_path):
    service = Service("broken", ["bash", "-c", "echo no such thing; exit 3"], tmp_path, ("127.0.0.1", 1)).start()
    with pytest.raises(RuntimeError, match=r"broken ended \(3\)\nno such thing"):
        service.wait(20)
