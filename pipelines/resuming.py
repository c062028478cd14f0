"""Runs that ended by something that passes go on where they stopped: `python -m pipelines resume`.

KFP hands a step's retries to Argo without a policy, so it is the cluster that says what is tried again: by Argo's own
default failures and no lost pod or node, by the default that KFP installs since 2.17 the other way round. What neither
tries again ends the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from pipelines.kubeflow import GATES, Access, SubmitError, steps_of, talking_to

_PAGE: Final = 100


def resume(access: Access, experiment: str, *, since: datetime, times: int) -> Iterator[str]:
    """Has the newest run of each pipeline go on, if it failed; gives one line a failed run.

    Args:
        access: how to reach Kubeflow.
        experiment: its name.
        since: runs that were started before are left.
        times: how often a run goes on at most.

    Raises:
        SubmitError: no connection, no access, or no such API.
    """
    with talking_to(access) as client:
        for run in _newest(client, access, experiment, since):
            if run.state != "FAILED":
                continue
            whole = client.get_run(run.run_id)
            states, _ = steps_of(whole)
            failed = [step for step, state in states.items() if state == "FAILED"]
            where = ", ".join(failed) or "no step says why"
            ended = sum(one.state == "FAILED" for one in whole.state_history or ())
            if set(failed) & set(GATES.values()):
                yield f"{run.display_name}: its gates do not hold; left as it is"
            elif ended > times:
                yield f"{run.display_name}: failed {ended} times ({where}); left as it is"
            else:
                client._run_api.run_service_retry_run(run.run_id)  # kfp's client has no method of its own for it
                yield f"{run.display_name}: goes on ({where})"


def _newest(client: Any, access: Access, experiment: str, since: datetime) -> Iterator[Any]:
    """The newest run of each pipeline: what somebody has started anew needs no older one to go on."""
    try:
        place = client.get_experiment(experiment_name=experiment, namespace=access.namespace).experiment_id
    except ValueError as error:
        raise SubmitError(f"{access.host}: no experiment {experiment!r}") from error
    seen: set[str] = set()
    token = ""
    while True:
        found = client.list_runs(token, _PAGE, "created_at desc", place, access.namespace)
        for run in found.runs or ():
            reference = run.pipeline_version_reference
            pipeline = reference.pipeline_id if reference else run.display_name
            if run.created_at < since or pipeline in seen:
                continue
            seen.add(pipeline)
            yield run
        token = found.next_page_token or ""
        if not token:
            return
