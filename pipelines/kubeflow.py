"""Pipelines on Kubeflow: compiled, submitted."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from newfound.config import TrainingConfig
from newfound.errors import NewfoundError
from pipelines.settings import settings

_REFUSED: Final = {
    401: "the server wants you to log in; set a token or a cookie as your Kubeflow's documentation says",
    403: "you are known there, but have no permission to start runs in this namespace",
    404: "no Kubeflow Pipelines API lives there; expected its root, such as the address that ml-pipeline-ui serves",
}


class SubmitError(NewfoundError):
    """Kubeflow that cannot be reached, or that refuses the run; the message names the host."""


def compile_training(output: Path, config: TrainingConfig | None = None) -> None:
    """Writes the training pipeline as KFP IR YAML.

    Args:
        output: the file; its folder is made.
        config: where given, its settings become the defaults of the pipeline's parameters.
    """
    from kfp import compiler

    from pipelines.training import training

    output.parent.mkdir(parents=True, exist_ok=True)
    defaults = None if config is None else settings(config)
    compiler.Compiler().compile(training, str(output), pipeline_parameters=defaults)


def submit_training(
    config: TrainingConfig, *, host: str, experiment: str, name: str | None, namespace: str | None, releases: str
) -> str:
    """Starts a run.

    Args:
        config: the configuration.
        host: URL of the Kubeflow Pipelines API.
        experiment: made where it does not exist.
        name: of the run; by data and time where absent.
        namespace: the profile, where Kubeflow serves several users.
        releases: URL of all releases, as the cluster sees it.

    Returns:
        The run's page.

    Raises:
        SubmitError: no connection, no access, or no such API.
    """
    from pipelines.training import training

    name = name or f"{config.data.loader} {datetime.now(UTC):%Y-%m-%d %H:%M}"
    given = {**settings(config), "releases": releases}
    return submit_pipeline(training, given, host=host, experiment=experiment, name=name, namespace=namespace)


def submit_pipeline(
    pipeline: Any, arguments: Mapping[str, Any], *, host: str, experiment: str, name: str, namespace: str | None
) -> str:
    """Compiles a pipeline and starts a run of it.

    Args:
        pipeline: the pipeline function.
        arguments: its parameters.
        host: URL of the Kubeflow Pipelines API.
        experiment: made where it does not exist.
        name: of the run.
        namespace: the profile, where Kubeflow serves several users.

    Returns:
        The run's page.

    Raises:
        SubmitError: no connection, no access, or no such API.
    """
    import kfp
    from kfp import compiler
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    with tempfile.TemporaryDirectory(prefix="newfound-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(package))
        try:
            run = kfp.Client(host=host).create_run_from_pipeline_package(
                str(package),
                arguments=dict(arguments),
                run_name=name,
                experiment_name=experiment,
                namespace=namespace,
            )
        except ApiException as error:
            why = _REFUSED.get(error.status, str(error.reason))
            raise SubmitError(f"{host}: answered {error.status}: {why}") from error
        except HTTPError as error:
            raise SubmitError(f"{host}: not reachable ({type(error).__name__}); is the address right?") from error
    return f"{host.rstrip('/')}/#/runs/details/{run.run_id}"
