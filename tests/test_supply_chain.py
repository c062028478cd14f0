"""What is installed: locked, with digests that are checked, audited where a list of vulnerabilities is in reach."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements.lock"
DIGEST: Final = "0" * 64


def _locked(lock: Path, *arguments: str | Path) -> list[str]:
    command = [sys.executable, str(ROOT / "images" / "locked.py"), str(lock), *map(str, arguments)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in printed.splitlines() if line and not line.lstrip().startswith("#")]


def _pins(lines: list[str]) -> dict[str, str]:
    return {line.split("==")[0]: line for line in lines if not line.startswith(" ")}


def test_every_locked_package_has_digests() -> None:
    entries = "\n".join(_locked(LOCK)).replace("\\\n", " ").splitlines()
    assert len(entries) > 200
    assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_a_folders_cpu_wheel_takes_torchs_place_with_its_own_digest(tmp_path: Path) -> None:
    version = _pins(_locked(LOCK))["torch"].split("==")[1].split()[0]
    wheel = tmp_path / f"torch-{version}+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    wheel.write_bytes(b"a wheel")
    without, with_wheel = _pins(_locked(LOCK)), _pins(_locked(LOCK, "--wheels", tmp_path))
    digest = hashlib.sha256(b"a wheel").hexdigest()
    assert with_wheel["torch"] == f"torch=={version}+cpu --hash=sha256:{digest}"
    left_out = set(without) - set(with_wheel)
    assert "triton" in left_out and all(name.startswith(("nvidia-", "cuda-", "triton")) for name in left_out)


def test_only_what_a_role_needs_is_taken_from_the_lock(tmp_path: Path) -> None:
    resolved = tmp_path / "resolved.txt"
    resolved.write_text("numpy==1\nhttpx==2\n")
    assert set(_pins(_locked(LOCK, "--only", resolved))) == {"numpy", "httpx"}
    resolved.write_text("numpy==1\nno-such-package==2\n")
    command = [sys.executable, str(ROOT / "images" / "locked.py"), str(LOCK), "--only", str(resolved)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1 and "no-such-package" in ended.stderr


def test_a_file_with_another_digest_is_not_installed(tmp_path: Path) -> None:
    """As `make setup` and the images install: the wheel here is not the one that was locked."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "tiny_part-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_part.py", "")
        archive.writestr("tiny_part-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-part\nVersion: 1.0\n")
        archive.writestr(
            "tiny_part-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_part-1.0.dist-info/RECORD", "")
    install = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-index", "--no-deps"]
    install += ["--find-links", str(folder), "--target", str(tmp_path / "site"), "--require-hashes", "-r"]
    lock = tmp_path / "lock.txt"
    for digest, refused in ((DIGEST, True), (hashlib.sha256(wheel.read_bytes()).hexdigest(), False)):
        lock.write_text(f"tiny-part==1.0 --hash=sha256:{digest}\n")
        ended = subprocess.run([*install, str(lock)], capture_output=True, text=True)
        assert (ended.returncode != 0) == refused, ended.stderr
        assert not refused or "Hash mismatch" in ended.stderr, ended.stderr
    makefile, images = (ROOT / "Makefile").read_text(), (ROOT / "images" / "install.sh").read_text()
    for text in (makefile, images):
        assert "locked.py requirements.lock" in text and "--require-hashes" in text


@contextmanager
def _vulnerabilities(answer: dict[str, object]) -> Iterator[str]:
    class Known(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Known)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()


def _audit(lock: Path, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "mk/audit.py", lock, url], capture_output=True, text=True)


def test_a_known_vulnerability_fails_the_audit_and_no_network_does_not(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tiny-part==1.0 --hash=sha256:{DIGEST}\n")
    affected = {"package": {"name": "tiny-part", "ecosystem": "PyPI"}}
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]
    known = {"vulns": [{"id": "GHSA-test", "summary": "bad", "affected": [{**affected, "ranges": ranges}]}]}
    with _vulnerabilities(known) as url:
        ended = _audit(lock, url)
    assert ended.returncode == 1 and "GHSA-test" in ended.stdout and "2.0" in ended.stdout
    with _vulnerabilities({}) as url:
        ended = _audit(lock, url)
    assert ended.returncode == 0 and "no known vulnerability" in ended.stdout
    ended = _audit(lock, "http://127.0.0.1:9/v1/query")
    assert ended.returncode == 0 and "not audited" in ended.stderr
