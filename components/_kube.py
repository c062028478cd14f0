"""Calls of the cluster's API that outlive its restarts."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

# How long a step goes on asking an API server that answers with errors of its own, or not at all.
PATIENCE_S: Final = 900.0
PAUSE_S: Final = 10.0
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
log = logging.getLogger("newfound.kube")


def patiently(call: Callable[..., Any], *args: Any, pause_s: float = PAUSE_S, **more: Any) -> Any:
    """The answer of a call that may be repeated, once the server gives one.

    Args:
        call: of kubernetes' client.
        args: its own.
        pause_s: between two attempts.
        more: its own, by name.

    Raises:
        ApiException: the server answers with an error that will not pass, or has not come back in time.
        HTTPError: likewise, without any answer.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call(*args, **more)
        except (ApiException, HTTPError) as error:
            passing = not isinstance(error, ApiException) or error.status in _PASSING
            if not passing or time.monotonic() > end:
                raise
            log.warning("the cluster's API does not answer (%s); asked again", getattr(error, "status", error))
        time.sleep(pause_s)
