"""What manifests ask of the servers, asked of the servers' own code: flags, ports, probes, files, variables, images."""

from __future__ import annotations

import argparse
import ast
import atexit
import importlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from k8s.kustomize import ROOT
from k8s.workloads import Workload, namespace_of, of_kind, workloads
from tests.k8s.conftest import Documents
from tests.k8s.references import environment, expanded

APP = "/app/"
VLLM = "vllm.entrypoints.openai.api_server"
CODE = ("newfound", "serving", "monitoring", "pipelines", "components", "feature_repo")


class Misuse(Exception):
    """Arguments that a program does not take; the message is the program's."""


def problems(documents: Documents) -> list[str]:
    """Everything that a server would not understand, or not find."""
    found: list[str] = []
    for workload in workloads(documents):
        for container in workload.containers:
            known = environment(workload, container, documents)
            command = [expanded(text, known) for text in container.get("command", ())]
            if command[:2] not in (["python", "-m"], ["python3", "-m"]):
                continue
            module, args = command[2], [*command[3:], *(expanded(text, known) for text in container.get("args", ()))]
            try:
                given = parsed(module, args)
            except Misuse as error:
                found.append(f"{workload.owner}: {module} {' '.join(args)}: {error}")
                continue
            for check in (listening, files, settings, images):
                found += [f"{workload.owner}: {text}" for text in check(workload, container, given, known, documents)]
            found += [f"{workload.owner}: {text}" for text in probes(container, module)]
            found += [f"{workload.owner}: {text}" for text in variables(container, module, known)]
    return found


# --- flags ----------------------------------------------------------------------------------------------------------


def parsed(module: str, args: Sequence[str]) -> dict[str, Any]:
    """What a module's own parser makes of arguments.

    Raises:
        Misuse: it takes no such arguments.
    """
    if module in _ARGPARSE:
        parser = _ARGPARSE[module]()
        parser.allow_abbrev = False  # a beginning of a flag's name is a slip here
        parser.exit_on_error = False
        parser.error = _refuse  # type: ignore[method-assign]
        try:
            return vars(parser.parse_args(list(args)))
        except argparse.ArgumentError as error:
            raise Misuse(str(error)) from error
    if module in _TYPER:
        return _click(get_command(_TYPER[module]()), list(args))
    if module == VLLM:
        return _vllm(args)
    raise Misuse("no module that is known here")


def _refuse(message: str) -> Any:
    raise Misuse(message)


def _explorer() -> argparse.ArgumentParser:
    from serving.explorer.service import arguments

    return arguments()


def _ranker() -> argparse.ArgumentParser:
    from serving.http.server import arguments

    return arguments("ranker")


def _stand_in() -> argparse.ArgumentParser:
    from serving.planner.__main__ import arguments

    return arguments()


def _of_function(module: str) -> typer.Typer:
    app = typer.Typer()
    app.command()(importlib.import_module(module).main)
    return app


_ARGPARSE: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "serving.explorer": _explorer,
    "serving.ranker": _ranker,
    "serving.planner": _stand_in,
}
_TYPER: dict[str, Callable[[], typer.Typer]] = {
    "monitoring": lambda: importlib.import_module("monitoring.__main__").app,
    "monitoring.collector": lambda: _of_function("monitoring.collector.__main__"),
    "pipelines": lambda: importlib.import_module("pipelines.__main__").app,
    "newfound.cli": lambda: importlib.import_module("newfound.cli").app,
}


def _click(command: Any, args: list[str]) -> dict[str, Any]:
    """Parses without running; subcommands are the leading words."""
    while hasattr(command, "commands"):
        if not args or args[0] not in command.commands:
            raise Misuse(f"no command {args[:1]}")
        command, args = command.commands[args[0]], args[1:]
    try:
        return dict(command.make_context("program", args).params)
    except Exception as error:  # typer carries a click of its own, whose exceptions differ
        if not hasattr(error, "format_message"):
            raise
        raise Misuse(error.format_message()) from error


def _vllm(args: Sequence[str]) -> dict[str, Any]:
    """vLLM is not in this environment: its flags are those with which it is started on one machine."""
    from serving.planner.vllm import command

    tried = {part for part in command(Path("python"), Path("planner"), "release", 1) if part.startswith("--")}
    tried |= {"--enable-prefix-caching"}  # the default, said
    given = {}
    for arg in args:
        name, _, value = arg.partition("=")
        if name not in tried:
            raise Misuse(f"no flag {name} that was tried")
        given[name.removeprefix("--").replace("-", "_")] = int(value) if value.isdigit() else value
    return given


# --- ports, files, settings -----------------------------------------------------------------------------------------


def listening(workload: Workload, container: Mapping[str, Any], given: Mapping[str, Any], *_: Any) -> Iterator[str]:
    """The port that is named is the port that is opened, to everybody and not on loopback."""
    ports = [port["containerPort"] for port in container.get("ports", ())]
    number = given.get("http_port", given.get("port"))
    if ports != ([] if number is None else [number]):
        yield f"opens {number}, and names {ports}"
    if ports and given.get("host") != "0.0.0.0":
        yield f"listens on {given.get('host')} alone"


def files(
    workload: Workload,
    container: Mapping[str, Any],
    given: Mapping[str, Any],
    known: Mapping[str, str],
    documents: Documents,
) -> Iterator[str]:
    """Paths are in the image's work folder, as in the repository, or below a mount, which is writable where need be."""
    mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", ())}
    values = [*(str(value) for value in given.values()), *known.values()]
    for value in values:
        if not value.startswith("/") or value.startswith("//"):
            continue
        if value.startswith(APP):
            if not (ROOT / value.removeprefix(APP)).exists():
                yield f"{value} is not in the repository"
        elif not any(value == path or value.startswith(f"{path}/") for path in mounts):
            yield f"{value} is below no mount"
    for name in ("cache", "spool", "out"):
        value = str(given.get(name) or "")
        mount = next((one for path, one in mounts.items() if value == path or value.startswith(f"{path}/")), None)
        if value and (mount is None or mount.get("readOnly")):
            yield f"{name} {value} cannot be written"


def settings(
    workload: Workload,
    container: Mapping[str, Any],
    given: Mapping[str, Any],
    known: Mapping[str, str],
    documents: Documents,
) -> Iterator[str]:
    """Mounted configuration is there, and is one."""
    from monitoring.settings import MonitoringConfig
    from newfound.settings import Settings, load_settings
    from serving.settings import ServingConfig

    models: dict[str, type[Settings]] = {"settings": ServingConfig, "config": MonitoringConfig}
    for name, model in models.items():
        path = given.get(name)
        if path is None:
            continue
        text = mounted(workload, container, str(path), documents)
        if text is None:
            yield f"{path} is in no ConfigMap"
            continue
        load_settings(model, _written(text))


def mounted(workload: Workload, container: Mapping[str, Any], path: str, documents: Documents) -> str | None:
    """The text of a file that comes out of a ConfigMap."""
    folder, _, key = path.rpartition("/")
    volume = next((one["name"] for one in container["volumeMounts"] if one["mountPath"] == folder), None)
    source = next((one for one in workload.pod["volumes"] if one["name"] == volume), {})
    for config in of_kind(documents, "ConfigMap"):
        if (
            config["metadata"]["name"] == source.get("configMap", {}).get("name")
            and namespace_of(config) == workload.namespace
        ):
            text: str | None = config["data"].get(key)
            return text
    return None


@lru_cache(maxsize=64)
def _written(text: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="newfound-k8s-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "settings.yaml").write_text(text, encoding="utf-8")
    return folder / "settings.yaml"


# --- images ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def targets() -> dict[str, set[str]]:
    """Folders of the repository that each image has, by the image's name, out of the Dockerfile."""
    found: dict[str, set[str]] = {}
    name = ""
    file = ROOT / "Dockerfile"
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        if stage := re.match(r"FROM base AS (\w+)", line):
            name = f"newfound-{stage[1]}"
            found[name] = set()
        elif line.startswith("FROM"):
            name = ""
        elif (copied := re.match(r"COPY (\w+) \1$", line)) and name:
            found[name].add(copied[1])
    return found


def images(
    workload: Workload, container: Mapping[str, Any], given: Mapping[str, Any], known: Mapping[str, str], documents: Any
) -> Iterator[str]:
    """The image has the folder of the module that is started, and of every file that is named."""
    name = re.split(r"[:@]", container["image"].rsplit("/", 1)[-1])[0]
    if name == "vllm-openai" or not targets():
        return
    if name not in targets():
        yield f"{container['image']} is no image of the Dockerfile's"
        return
    module = container["command"][2].split(".")[0]
    named = {
        value.removeprefix(APP).split("/")[0]
        for value in [*map(str, given.values()), *known.values()]
        if value.startswith(APP)
    }
    for folder in sorted({module, *named} - targets()[name]):
        yield f"{name} has no folder {folder}"


# --- probes ---------------------------------------------------------------------------------------------------------


def probes(container: Mapping[str, Any], module: str) -> Iterator[str]:
    """Each probe's path is answered with 200 by the application itself, at the port that is open."""
    ports = {value for port in container.get("ports", ()) for value in (port["containerPort"], port["name"])}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.get(kind)
        if probe is None:
            if container.get("ports"):
                yield f"no {kind}"
            continue
        where = probe.get("httpGet") or probe.get("tcpSocket")
        if where["port"] not in ports:
            yield f"{kind}: port {where['port']} is not open"
        if "httpGet" in probe and (status := answer(module, "GET", where["path"])) != 200:
            yield f"{kind}: {where['path']} is answered {status}"


def answer(module: str, method: str, path: str) -> int:
    """The status with which a server's application answers, with one model that is ready."""
    if module == "monitoring":
        return _exporter(path)
    if module == VLLM:
        module = "serving.planner"  # speaks the part of the protocol that is used here
    return int(_client(module).request(method, path).status_code)


@lru_cache(maxsize=8)
def _client(module: str) -> Any:
    from starlette.testclient import TestClient

    if module in ("serving.explorer", "serving.ranker"):
        return TestClient(_kserve(), raise_server_exceptions=False)
    if module == "serving.planner":
        from serving.planner.runtime import Runtime, create_app

        return TestClient(create_app(Runtime("releases", Path("cache"))), raise_server_exceptions=False)
    from monitoring.collector.app import create_app as collector
    from monitoring.settings import MonitoringConfig
    from monitoring.store.database import Store

    secret = b"a key of the tests alone"
    store = Store(f"sqlite:///{_written('').parent}/events.db", secret)
    return TestClient(collector(store, MonitoringConfig(), secret), raise_server_exceptions=False)


def _kserve() -> Any:
    """KServe's routes behind newfound's gate, as `serving.http.server` puts them together."""
    from fastapi import FastAPI
    from kserve import Model, ModelRepository
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension

    from serving.http.server import _Rest
    from serving.settings import ServingConfig

    class Ready(Model):  # type: ignore[misc]
        async def healthy(self) -> bool:
            return True

    registry, app = ModelRepository(), FastAPI()
    model = Ready("newfound")
    model.ready = True
    registry.update(model)
    dataplane = DataPlane(model_registry=registry)
    extension = ModelRepositoryExtension(model_registry=registry)
    rest = _Rest("127.0.0.1", ServingConfig(), "", None, "kserve.model_server:app", dataplane, extension, 8080)
    rest._add_middlewares(app)
    rest._register_endpoints(app)
    rest._add_exception_handlers(app)
    return app


def _exporter(path: str) -> int:
    from prometheus_client import CollectorRegistry, make_wsgi_app

    from monitoring.exporter import Exporter
    from monitoring.store.database import Store

    registry = CollectorRegistry()
    registry.register(Exporter(Store(f"sqlite:///{_written('').parent}/events.db", b"a key of the tests alone")))
    statuses: list[str] = []
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": ""}
    list(make_wsgi_app(registry)(request, lambda status, headers: statuses.append(status)))
    return int(statuses[0].split()[0])


# --- variables ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _words() -> set[str]:
    """Every string in the code, and every variable in Feast's YAML."""
    found: set[str] = set()
    for folder in CODE:
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found |= {
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
    for file in (ROOT / "feature_repo").glob("*.yaml"):
        found |= set(re.findall(r"\$\{(\w+)\}", file.read_text(encoding="utf-8")))
    return found


NEEDED = {
    "serving.explorer": {"NEWFOUND_USER_KEY", "NEWFOUND_FEATURES", "NEWFOUND_REDIS", "FEAST_FS_YAML_FILE_PATH"},
    "monitoring.collector": {
        "NEWFOUND_STORE",
        "NEWFOUND_USER_KEY",
        "NEWFOUND_FEATURES",
        "NEWFOUND_REDIS",
        "FEAST_FS_YAML_FILE_PATH",
    },
    "monitoring": {"NEWFOUND_STORE", "NEWFOUND_USER_KEY"},
}


def variables(container: Mapping[str, Any], module: str, known: Mapping[str, str]) -> Iterator[str]:
    """newfound's variables are read by somebody, or used in this very container; and what a server needs is there."""
    texts = " ".join([*container.get("command", ()), *container.get("args", ())])
    texts += " ".join(str(variable.get("value", "")) for variable in container.get("env", ()))
    for name in known:
        if name.startswith(("NEWFOUND_", "FEAST_")) and name not in _words() and f"$({name})" not in texts:
            own = {variable["name"] for variable in container.get("env", ())}
            if name in own:
                yield f"nobody reads {name}"
    for name in sorted(NEEDED.get(module, set()) - set(known)):
        yield f"{module} needs {name}"


def vllm_takes(python: Path, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What vLLM's own parser says of arguments."""
    code = (
        "import sys; from vllm.entrypoints.launchers.cli_args import make_arg_parser; "
        "from vllm.utils.argparse_utils import FlexibleArgumentParser; "
        "make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])"
    )
    return subprocess.run([str(python), "-c", code, *args], capture_output=True, text=True, check=False)
