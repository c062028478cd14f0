"""``make serve``: every part as its own process on loopback, from the current release.

The parts and their arguments are those of the cluster. Feast's online store is Redis where `redis-server` is installed,
sqlite otherwise; the planner is asked live where its engine is set up.
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
    marker.write_text(state)


def planner(options: argparse.Namespace, work: Path) -> tuple[list[Service], list[str]]:
    """The planner's engine, if there is to be one, and the explorer's arguments for it."""
    kind = options.planner
    if kind == "auto":
        kind = "vllm" if VLLM.exists() else "none"
    if kind == "none":
        return [], []
    from newfound.release.store import current

    release = current(options.releases)
    folder = Path(options.releases) / str(release) / "planner"
    if release is None or not folder.is_dir():
        return [], []
    port = options.port + 3
    if kind == "vllm":
        from serving.planner.vllm import command, environment

        engine = Service(
            "planner", command(VLLM, folder, release, port), work, f"http://127.0.0.1:{port}/health", environment()
        )
    else:
        engine = Service.module(
            "planner",
            "serving.planner",
            ["--releases", options.releases, "--host", "127.0.0.1", "--http_port", str(port)],
            work,
            f"http://127.0.0.1:{port}/health",
        )
    return [engine.start()], ["--planner_url", f"http://127.0.0.1:{port}"]


def main() -> None:
    """Starts everything, waits, and ends everything."""
    options = parse()
    began = time.monotonic()
    work = Path(options.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    key = work / "user_key"
    if not key.exists():
        write_text(key, secrets.token_hex(16), mode=0o600)
    shared = [
        "--releases",
        options.releases,
        "--host",
        "127.0.0.1",
        "--model_name",
        "newfound",
        "--enable_grpc",
        "true",
    ]
    shared += ["--settings", options.settings] if options.settings else []
    explorer_port, ranker_port = options.port, options.port + 2
    services: list[Service] = []
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        ranker = Service.module(
            "ranker",
            "serving.ranker",
            [*shared, "--http_port", str(ranker_port), "--grpc_port", str(options.port + 5)],
            work,
            f"http://127.0.0.1:{ranker_port}/v2/models/newfound/ready",
        )
        services.append(ranker.start())
        stores, environment = online_store(options, work)
        services += stores
        engines, planner_arguments = planner(options, work)
        services += engines
        arguments = [*shared, "--http_port", str(explorer_port), "--grpc_port", str(options.port + 1)]
        arguments += [
            "--predictor_host",
            f"127.0.0.1:{ranker_port}",
            "--spool",
            str(work / "spool"),
            *planner_arguments,
        ]
        arguments += ["--feast", str(REPOSITORY)] if environment else []
        arguments += ["--collector", options.collector] if options.collector else []
        arguments += ["--page"] if options.page else []
        if options.page and environment:
            arguments += ["--page_users", str(Path(options.features) / "user_history.parquet")]
        environment["NEWFOUND_USER_KEY"] = os.environ.get("NEWFOUND_USER_KEY", key.read_text())
        explorer = Service.module(
            "explorer",
            "serving.explorer",
            arguments,
            work,
            f"http://127.0.0.1:{explorer_port}/v2/models/newfound/ready",
            environment,
        )
        services.append(explorer.start())
        for service in (ranker, explorer):
            service.wait(120)
        print(
            f"ready after {time.monotonic() - began:.1f} s: http://127.0.0.1:{explorer_port}/v1/models/newfound:predict"
        )
        if options.page:
            print(f"page: http://127.0.0.1:{explorer_port}/page")
        print(f"logs: {work}; end with Ctrl-C", flush=True)
        while not ended.wait(1):
            for service in services:
                if service.process is not None and service.process.poll() is not None:
                    print(f"{service.name} ended; started again\n{service.tail(500)}", flush=True)
                    service.kill()  # what it may have left running
                    service.start()
    finally:
        for service in reversed(services):
            service.stop()


if __name__ == "__main__":
    main()
