"""Parts of a running system, and the faults that befall each."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from serving.local.processes import Service
from tests.chaos.proxy import Proxy
from tests.monitoring.servers import Postgres

SKEW_S: Final = 900.0


class Part(Protocol):
    """Something that faults are brought upon.

    Attributes:
        name: for the record.
        code: what answers say while it is stepped around; empty where no answer should notice.
        faults: what may befall it.
    """

    name: str
    code: str
    faults: tuple[str, ...]

    def break_it(self, fault: str) -> None:
        """Brings the fault."""

    def mend(self, fault: str) -> None:
        """Takes it away; returns once the part itself is back."""


@dataclass
class Process:
    """A service behind a proxy."""

    name: str
    code: str
    service: Service
    proxy: Proxy
    faults: tuple[str, ...] = ("kill", "stop", "slow", "wrong", "garbage")

    def break_it(self, fault: str) -> None:
        if fault == "kill":
            self.service.kill()
        elif fault == "stop":
            self.service.signal(signal.SIGSTOP)
        else:
            self.proxy.mode = fault

    def mend(self, fault: str) -> None:
        if fault == "kill":
            self.service.start().wait()
        elif fault == "stop":
            self.service.signal(signal.SIGCONT)
        else:
            self.proxy.mode = "pass"


@dataclass
class Database:
    """PostgreSQL behind a proxy; events wait while it is away, and no answer notices."""

    server: Postgres
    proxy: Proxy
    name: str = "postgres"
    code: str = ""
    faults: tuple[str, ...] = ("kill", "half-open", "stall")

    def break_it(self, fault: str) -> None:
        if fault == "kill":
            self.server.crash()
        else:
            self.proxy.mode = fault

    def mend(self, fault: str) -> None:
        if fault == "kill":
            self.server.start()
        else:
            self.proxy.mode = "pass"


@dataclass
class Disk:
    """The explorer's disk, while the collector does not take what would be spooled to it."""

    control: Path
    collector: Proxy
    name: str = "disk"
    code: str = ""
    faults: tuple[str, ...] = ("short", "eio", "rename")

    def break_it(self, fault: str) -> None:
        self.collector.mode = "wrong"
        self.control.write_text(json.dumps({"disk": fault}))

    def mend(self, fault: str) -> None:
        self.control.unlink()
        self.collector.mode = "pass"


@dataclass
class Clock:
    """The explorer's clock."""

    control: Path
    name: str = "clock"
    code: str = ""
    faults: tuple[str, ...] = ("ahead", "behind")

    def break_it(self, fault: str) -> None:
        self.control.write_text(json.dumps({"clock": SKEW_S if fault == "ahead" else -SKEW_S}))

    def mend(self, fault: str) -> None:
        self.control.unlink()


@dataclass
class Releases:
    """The files beside the releases that services read every second."""

    root: Path
    name: str = "releases"
    code: str = ""
    faults: tuple[str, ...] = ("garbage", "gone")
    _kept: dict[str, bytes] = field(default_factory=dict)

    def break_it(self, fault: str) -> None:
        for name in ("current", "takedown.json"):
            file = self.root / name
            self._kept[name] = file.read_bytes()
            if fault == "gone":
                file.unlink()
            else:
                file.write_bytes(b"\x00\xff{")

    def mend(self, fault: str) -> None:
        for name, content in self._kept.items():
            (self.root / name).write_bytes(content)
