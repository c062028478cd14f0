"""The gateway's weights: which canary has traffic, and all of it back for the pair that serves.

The route and the canary's name are those of the pipelines' `deploy_release`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final

from newfound.errors import NewfoundError

ROUTES: Final = ("gateway.networking.k8s.io", "v1")
ROUTE: Final = "newfound"
STABLE: Final = "newfound-transformer"
MANAGER: Final = "newfound-pipeline"  # GitOps controllers leave to it what it changes
_CANARY: Final = re.compile(r"newfound-canary-([0-9a-f]{12})-transformer")


class TrafficError(NewfoundError):
    """The gateway's route cannot be read or changed; the message says what the cluster answered."""


def canary_on(route: Mapping[str, Any]) -> str | None:
    """The digest in the id of the release whose canary has a share of the traffic; None where there is none."""
    for backend in route["spec"]["rules"][0].get("backendRefs", []):
        found = _CANARY.fullmatch(backend["name"])
        if found and backend.get("weight", 1) > 0:
            return found[1]
    return None


def without_canary(route: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that gives all traffic to the pair that serves.

    It names the version that it was made from: a route that somebody else changes meanwhile is left as it is.

    Raises:
        TrafficError: the first rule does not lead there.
    """
    rules = copy.deepcopy(route["spec"]["rules"])
    stable = [one for one in rules[0].get("backendRefs", []) if one["name"] == STABLE]
    if not stable:
        raise TrafficError(f"HTTPRoute {ROUTE}: its first rule does not lead to {STABLE}; no weights to move")
    rules[0]["backendRefs"] = [{**stable[0], "weight": 100}]
    return {"metadata": {"resourceVersion": route["metadata"]["resourceVersion"]}, "spec": {"rules": rules}}


class Gateway:
    """The route of a namespace, through the cluster's API.

    Args:
        namespace: the route's.
    """

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config

        config.load_config()
        self._objects = client.CustomObjectsApi()
        self._at = (*ROUTES, namespace, "httproutes", ROUTE)

    def route(self) -> dict[str, Any]:
        """The route as it is.

        Raises:
            TrafficError: the cluster does not give it.
        """
        return self._asked(self._objects.get_namespaced_custom_object, *self._at)

    def roll_back(self, route: Mapping[str, Any]) -> None:
        """Gives all traffic to the pair that serves.

        Raises:
            TrafficError: the cluster refuses, or somebody else changed the route since it was read.
        """
        patch = without_canary(route)
        self._asked(self._objects.patch_namespaced_custom_object, *self._at, patch, field_manager=MANAGER)

    @staticmethod
    def _asked(call: Any, *args: Any, **more: Any) -> dict[str, Any]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return dict(call(*args, **more))
        except ApiException as error:
            raise TrafficError(f"HTTPRoute {ROUTE}: the cluster answered {error.status} {error.reason}") from error
        except HTTPError as error:
            raise TrafficError(f"HTTPRoute {ROUTE}: the cluster does not answer ({error})") from error
