"""``make serve``: every part as its own process on loopback, from the current release.

The parts and their arguments are those of the cluster. Feast's online store is Redis where `redis-server` is installed,
sqlite otherwise; the live planner runs where its engine is set up.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from feature_repo.store import FOLDER_VARIABLE, REPOSITORY, YAML_VARIABLE
from newfound.files import write_text
from serving.local.processes import Service

ROOT: Final = Path(__file__).parents[2]
VLLM: Final = ROOT / ".vllm" / "bin" / "python"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The launcher's arguments."""
    parser = argparse.ArgumentParser(prog="serving.local.__main__", description=__doc__)
    parser.add_argument("--releases", default="releases", help="Folder or URL of all releases.")
    parser.add_argument("--features", default="runs/local/features", help="Folder that a run materialised.")
    parser.add_argument("--port", type=int, default=8080, help="The explorer's; the others take the ports above it.")
    parser.add_argument("--online", choices=["auto", "redis", "sqlite", "none"], default="auto", help="Online store.")
    parser.add_argument("--planner", choices=["auto", "vllm", "local", "none"], default="auto", help="Live planner.")
    parser.add_argument("--collector", help="Where events go; nowhere by default.")
    parser.add_argument("--settings", help="YAML of the services' settings.")
    parser.add_argument("--work", default="runs/serve", help="Folder for logs, Redis and the spool.")
    parser.add_argument("--no-page", dest="page", action="store_false", help="Without the page.")
    return parser.parse_args(arguments)


def online_store(options: argparse.Namespace, work: Path) -> tuple[list[Service], dict[str, str]]:
    """The online store's process, if it has one, and what the explorer's environment must say."""
    features = Path(options.features).resolve()
    if options.online == "none" or not (features / "registry.db").exists():
        if options.online != "none":
            print(f"no feature store in {options.features}: requests must bring their histories")
        return [], {}
    environment = {FOLDER_VARIABLE: str(features)}
    kind = options.online
    if kind == "auto":
        kind = "redis" if shutil.which("redis-server") else "sqlite"
    environment[YAML_VARIABLE] = str(
        REPOSITORY / ("feature_store.production.yaml" if kind == "redis" else "feature_store.yaml")
    )
    if kind == "sqlite":
        return [], environment
    port = options.port + 4
    environment["NEWFOUND_REDIS"] = f"127.0.0.1:{port}"
    folder = work / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    redis = Service("redis", [*command, "--appendonly", "yes"], work, ("127.0.0.1", port)).start().wait(20)
    fill_redis(features, folder, environment)
    return [redis], environment


def fill_redis(features: Path, folder: Path, environment: dict[str, str]) -> None:
    """Materialises what the run registered into Redis, unless that was done for these very files."""
    marker = folder / "filled"
    state = ",".join(f"{file.name}:{file.stat().st_mtime_ns}" for file in sorted(features.iterdir()) if file.is_file())
    if marker.exists() and marker.read_text() == state:
        return
    code = "from feature_repo.store import materialise, open_store; materialise(open_store())"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment}, cwd=ROOT)
    write_text(marker, state)


def planner(options: argparse.Namespace, work: Path) -> tuple[list[Service], list[str]]:
    """The planner's engine, if there is to be one, and the explorer's arguments for it."""
    kind = options.planner
    if kind == "auto":
        kind = "vllm" if VLLM.exists() else "none"
    if kind == "none":
        return [], []
    from newfound.release.store import current, manifest_of

    release = current(options.releases)
    name = manifest_of(options.releases, release).planner_name if release else None
    if name is None:
        return [], []
    port = options.port + 3
    health = f"http://127.0.0.1:{port}/health"
    if kind == "vllm":
        from serving.planner.vllm import command, environment

        folder = Path(options.releases) / str(release) / "planner"
        engine = Service("planner", command(VLLM, folder, name, port), work, health, environment())
    else:
        arguments = ["--releases", options.releases, "--host", "127.0.0.1", "--http_port", str(port)]
        engine = Service.module("planner", "serving.planner", arguments, work, health)
    return [engine.start()], ["--planner_url", f"http://127.0.0.1:{port}"]


def user_key(work: Path) -> str:
    """The key of the users' hashes; made once, for its owner's eyes only."""
    if told := os.environ.get("NEWFOUND_USER_KEY"):
        return told
    file = work / "user_key"
    if not file.exists():
        write_text(file, secrets.token_hex(16), mode=0o600)
    return file.read_text(encoding="utf-8")


def shared_arguments(options: argparse.Namespace) -> list[str]:
    """The arguments that explorer and ranker share."""
    shared = ["--releases", options.releases, "--host", "127.0.0.1", "--model_name", "newfound"]
    return [*shared, "--enable_grpc", "true", *(["--settings", options.settings] if options.settings else [])]


def ranker(options: argparse.Namespace, work: Path) -> Service:
    """The ranker, not started."""
    ports = ["--http_port", str(options.port + 2), "--grpc_port", str(options.port + 5)]
    ready = f"http://127.0.0.1:{options.port + 2}/v2/models/newfound/ready"
    return Service.module("ranker", "serving.ranker", [*shared_arguments(options), *ports], work, ready)


def explorer(
    options: argparse.Namespace, work: Path, planner_arguments: list[str], environment: dict[str, str]
) -> Service:
    """The explorer, not started.

    Args:
        options: of the launcher.
        work: folder for log and spool.
        planner_arguments: see `planner`.
        environment: of the online store; empty where there is none.
    """
    arguments = [*shared_arguments(options), "--http_port", str(options.port), "--grpc_port", str(options.port + 1)]
    arguments += ["--predictor_host", f"127.0.0.1:{options.port + 2}", "--spool", str(work / "spool")]
    arguments += planner_arguments
    arguments += ["--feast", str(REPOSITORY)] if environment else []
    arguments += ["--collector", options.collector] if options.collector else []
    arguments += ["--page"] if options.page else []
    if options.page and environment:
        arguments += ["--page_users", str(Path(options.features) / "user_history.parquet")]
    ready = f"http://127.0.0.1:{options.port}/v2/models/newfound/ready"
    told = {**environment, "NEWFOUND_USER_KEY": user_key(work)}
    return Service.module("explorer", "serving.explorer", arguments, work, ready, told)


def start(options: argparse.Namespace, work: Path, services: list[Service]) -> None:
    """Starts every part, and waits until requests are answered.

    Args:
        options: of the launcher.
        work: folder for logs, Redis and the spool.
        services: takes what was started, as soon as it is.
    """
    services.append(ranker(options, work).start())
    stores, environment = online_store(options, work)
    services += stores
    engines, planner_arguments = planner(options, work)
    services += engines
    services.append(explorer(options, work, planner_arguments, environment).start())
    for service in (services[0], services[-1]):
        service.wait(120)


def keep_up(services: Sequence[Service], ended: threading.Event) -> None:
    """Starts anew what ends, until `ended` is set."""
    while not ended.wait(1):
        for service in services:
            if service.process is not None and service.process.poll() is not None:
                print(f"{service.name} ended; started again\n{service.tail(500)}", flush=True)
                service.kill()  # what it may have left running
                service.start()


def main() -> None:
    """Starts everything, waits, and ends everything."""
    options = parse()
    began = time.monotonic()
    work = Path(options.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    services: list[Service] = []
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        start(options, work, services)
        url = f"http://127.0.0.1:{options.port}"
        print(f"ready after {time.monotonic() - began:.1f} s: {url}/v1/models/newfound:predict")
        if options.page:
            print(f"page: {url}/page")
        print(f"logs: {work}; end with Ctrl-C", flush=True)
        keep_up(services, ended)
    finally:
        for service in reversed(services):
            service.stop()


if __name__ == "__main__":
    main()
