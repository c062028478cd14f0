"""Asks a list of known vulnerabilities about the packages of a lock: `audit.py LOCK OSV_URL`.

Exit status 1 where it knows of one, 0 where it does not. Without network nothing is known: that is said, and is no
failure.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def main(lock: str, service: str) -> int:
    """Runs pip-audit and tells its findings from its failing to ask."""
    with tempfile.TemporaryDirectory(prefix="newfound-audit-") as folder:
        out = Path(folder) / "found"
        command = [sys.executable, "-m", "pip_audit", "-r", lock, "--require-hashes", "--disable-pip", "-s", "osv"]
        command += ["--osv-url", service, "--progress-spinner", "off", "--timeout", "10", "-o", str(out)]
        ended = subprocess.run(command, capture_output=True, text=True)
        found = out.read_text(encoding="utf-8") if out.exists() else ""
    if ended.returncode == 0:
        print(f"{lock}: no known vulnerability")
        return 0
    if found:
        print(found)
        return 1
    reason = ended.stderr.strip().splitlines()[-1:] or ["no reason given"]
    if "Connect" in ended.stderr or "Timeout" in ended.stderr:
        print(f"{lock}: not audited, the list of vulnerabilities is out of reach ({reason[0][:200]})", file=sys.stderr)
        return 0
    print(f"{lock}: cannot be audited: {reason[0]}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
