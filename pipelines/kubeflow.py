"""The pipelines on Kubeflow: compiled, uploaded, started once or on a schedule, waited for."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from newfound.config import TrainingConfig
from newfound.errors import ConfigError, NewfoundError
from pipelines.batch import define_batch
from pipelines.interests import define_interests
from pipelines.platform import Platform
from pipelines.refresh import define_refresh
from pipelines.training import define_training

PIPELINES: Final = ("training", "refresh", "batch", "interests")
GATES: Final = {"training": "check-gates", "refresh": "judge-refresh"}
_REFUSED: Final = {
    400: "the request was not understood; is this Kubeflow Pipelines older than 2.0?",
    401: "the server wants you to log in; set NEWFOUND_KFP_TOKEN or NEWFOUND_KFP_COOKIES to what Kubeflow gives you",
    403: "you are known there, but have no permission to start runs in this namespace",
    404: "no Kubeflow Pipelines API lives there; expected its root, such as the address that ml-pipeline-ui serves",
}


class SubmitError(NewfoundError):
    """Kubeflow that cannot be reached, or that refuses the run; the message names the host."""


class RunError(NewfoundError):
    """A run that did not succeed; the message names the steps that failed, and the run's page."""


@dataclass(frozen=True)
class Access:
    """Access to the Kubeflow Pipelines API.

    Attributes:
        host: its URL.
        namespace: the profile, where Kubeflow serves several users.
        token: a bearer token.
        cookies: of a session, such as authservice_session=...
        ca_file: certificates that the host's is signed by, where the system's do not do.
    """

    host: str
    namespace: str | None = None
    token: str | None = None
    cookies: str | None = None
    ca_file: str | None = None

    @classmethod
    def by_environment(cls, host: str, namespace: str | None, ca_file: str | None) -> Access:
        """With the token or the session that the environment has.

        Raises:
            ConfigError: a ServiceAccount's token is named, and cannot be read.
        """
        token = os.environ.get("NEWFOUND_KFP_TOKEN") or _token_of_pod()
        return cls(host, namespace, token, os.environ.get("NEWFOUND_KFP_COOKIES"), ca_file)


def _token_of_pod() -> str | None:
    """The ServiceAccount's own, in the file that Kubeflow's clients look for in a pod."""
    file = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); expected the ServiceAccount's token") from error


@dataclass(frozen=True)
class Submitted:
    """A run, or a schedule of runs.

    Attributes:
        id: the run's, or the recurring run's.
        name: of it.
        page: its page.
    """

    id: str
    name: str
    page: str


def shards_of(name: str, config: TrainingConfig, platform: Platform) -> int:
    """Parts that a pipeline's work is shared out to: of the batch's users, else of the table."""
    return platform.batch_shards if name == "batch" else config.table.shards


def compile_pipeline(
    name: str,
    output: Path,
    platform: Platform | None = None,
    *,
    shards: int = 1,
    defaults: Mapping[str, Any] | None = None,
    recurring: bool = False,
) -> None:
    """Writes a pipeline as KFP IR YAML.

    Args:
        name: one of PIPELINES.
        output: the file; its folder is made.
        platform: the cluster; absent means the pipeline as it runs on one machine.
        shards: of the table, or of the batch's users.
        defaults: of the pipeline's parameters.
        recurring: whether the data is read anew each time, whatever its arguments said when it was started.
    """
    from kfp import compiler

    define: dict[str, Callable[[], Any]] = {
        "training": lambda: define_training(platform, shards),
        "refresh": lambda: define_refresh(platform),
        "batch": lambda: define_batch(platform, shards),
        "interests": lambda: define_interests(platform),
    }
    if recurring and platform is not None:
        platform = platform.model_copy(update={"fresh": (*platform.fresh, "load-interactions")})
    output.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiler.Compiler().compile(define[name](), str(output), pipeline_parameters=dict(defaults or {}) or None)


def submit(
    name: str,
    arguments: Mapping[str, Any],
    platform: Platform,
    access: Access,
    *,
    experiment: str,
    run_name: str,
    shards: int = 1,
    cron: str | None = None,
) -> Submitted:
    """Uploads the pipeline where it is not there yet in this version, and starts it.

    Args:
        name: one of PIPELINES.
        arguments: the pipeline's.
        platform: the cluster.
        access: how to reach it.
        experiment: made where it does not exist.
        run_name: of the run.
        shards: see `compile_pipeline`.
        cron: six fields, seconds first; absent: one run, now.

    Raises:
        SubmitError: no connection, no access, or no such API.
    """
    with tempfile.TemporaryDirectory(prefix="newfound-") as folder, talking_to(access) as client:
        package = Path(folder) / f"{name}.yaml"
        compile_pipeline(name, package, platform, shards=shards, recurring=cron is not None)
        pipeline, version = _upload(client, package, f"newfound-{name}", access.namespace)
        place = client.create_experiment(experiment, namespace=access.namespace).experiment_id
        given = {
            "experiment_id": place,
            "job_name": run_name,
            "params": dict(arguments),
            "pipeline_id": pipeline,
            "version_id": version,
            "service_account": platform.service_account,
            "pipeline_root": platform.pipeline_root,
        }
        root = access.host.rstrip("/")
        if cron is None:
            run = client.run_pipeline(**given)
            return Submitted(run.run_id, run_name, f"{root}/#/runs/details/{run.run_id}")
        # One after another, and none for the moments that were missed: a run reads all the data that there is.
        recurring = client.create_recurring_run(**given, cron_expression=cron, max_concurrency=1, no_catchup=True)
        identity = recurring.recurring_run_id
        return Submitted(identity, run_name, f"{root}/#/recurringrun/details/{identity}")


def wait(name: str, submitted: Submitted, access: Access, *, seconds: float, poll_s: int = 30) -> dict[str, str]:
    """Waits for a run to end.

    Args:
        name: one of PIPELINES.
        submitted: the run.
        access: how to reach it.
        seconds: how long to wait.
        poll_s: between two looks.

    Returns:
        Every step's state by its name.

    Raises:
        RunError: the run failed, at its gates or elsewhere, or is not done in time.
        SubmitError: the API went away.
    """
    with talking_to(access) as client:
        try:
            run = client.wait_for_run_completion(submitted.id, timeout=seconds, sleep_duration=poll_s)
        except TimeoutError as error:
            raise RunError(f"{submitted.name}: still running after {seconds:g} s: {submitted.page}") from error
    states, why = steps_of(run)
    if run.state == "SUCCEEDED":
        return states
    gate = GATES.get(name)
    if gate and states.get(gate) == "FAILED":
        told = f": {why[gate]}" if gate in why else "; its log says which"
        raise RunError(f"{submitted.name}: the gates do not hold, nothing was published{told}: {submitted.page}")
    failed = [f"{step} ({why[step]})" if step in why else step for step, state in states.items() if state == "FAILED"]
    raise RunError(f"{submitted.name}: {run.state}: {', '.join(failed) or 'no step says why'}: {submitted.page}")


def steps_of(run: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Every step's state by its name, and what the steps that failed say."""
    states, why = {}, {}
    for task in (run.run_details.task_details if run.run_details else None) or []:
        if task.display_name not in ("root", "root-driver") and not task.display_name.endswith("-driver"):
            states[task.display_name] = str(task.state)
            if task.error is not None and task.error.message:
                why[task.display_name] = " ".join(str(task.error.message).split())
    return states, why


def _upload(client: Any, package: Path, name: str, namespace: str | None) -> tuple[str, str]:
    """Ids of the pipeline and of the version with this very content, which gives the version its name."""
    version = f"{name} {hashlib.sha256(package.read_bytes()).hexdigest()[:12]}"
    # Not get_pipeline_id, which looks among everybody's pipelines alone.
    called = {"predicates": [{"operation": 1, "key": "display_name", "stringValue": name}]}
    found = client.list_pipelines(filter=json.dumps(called), namespace=namespace).pipelines
    if found:
        pipeline = found[0].pipeline_id
    else:
        pipeline = client.upload_pipeline(str(package), name, namespace=namespace).pipeline_id
    token = ""
    while True:
        listed = client.list_pipeline_versions(pipeline, page_token=token, page_size=100)
        for one in listed.pipeline_versions or []:
            if one.display_name == version:
                return pipeline, one.pipeline_version_id
        token = listed.next_page_token or ""
        if not token:
            break
    return pipeline, client.upload_pipeline_version(str(package), version, pipeline_id=pipeline).pipeline_version_id


@contextlib.contextmanager
def talking_to(access: Access) -> Iterator[Any]:
    """A client, whose errors become messages of ours, and whose chatter goes nowhere."""
    import kfp
    import kfp_server_api
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        _look_at(access, kfp_server_api)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield kfp.Client(
                host=access.host,
                namespace=access.namespace or "kubeflow",
                existing_token=access.token,
                cookies=access.cookies,
                ssl_ca_cert=access.ca_file,
            )
    except ApiException as error:
        why = _REFUSED.get(error.status, str(error.reason))
        raise SubmitError(f"{access.host}: answered {error.status}: {why}") from error
    except (HTTPError, TimeoutError) as error:
        raise SubmitError(f"{access.host}: not reachable ({type(error).__name__}); is the address right?") from error
    except (ValueError, AttributeError) as error:
        # What is no API answers with pages that the client cannot read.
        raise SubmitError(f"{access.host}: {_REFUSED[404]} ({type(error).__name__}: {error})") from error


def _look_at(access: Access, kfp_server_api: Any) -> None:
    """Asks the API how it is: kfp's client asks five times, with pauses, before it says that it was refused."""
    given = kfp_server_api.Configuration(host=access.host.rstrip("/"))
    given.ssl_ca_cert = access.ca_file or given.ssl_ca_cert
    if access.token:
        given.api_key, given.api_key_prefix = {"authorization": access.token}, {"authorization": "Bearer"}
    client = kfp_server_api.ApiClient(given, cookie=access.cookies)
    found = kfp_server_api.HealthzServiceApi(client).healthz_service_get_healthz()
    if not isinstance(found.multi_user, bool):
        raise ValueError("its health is not one of Kubeflow Pipelines")
