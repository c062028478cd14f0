"""The production manifests as `deploy_release` leaves the cluster."""

from __future__ import annotations

import copy
from typing import Final

from components._canary import canary_of, weights_of
from k8s.workloads import of_kind
from tests.k8s.conftest import Documents

NAMED: Final = "00112233445566aa"  # a planner's name


def with_canary(production: Documents, release: str, weight: int) -> Documents:
    """With a canary made of the pair that serves, and `weight` percent of the requests for it."""
    after = copy.deepcopy(production)
    made = [canary_of(one, release, NAMED) for one in of_kind(production, "InferenceService")]
    for one in made:
        one["metadata"]["namespace"] = "newfound"
    (route,) = of_kind(after, "HTTPRoute")
    served = {**route, "metadata": {**route["metadata"], "resourceVersion": "1"}}
    route["spec"]["rules"] = weights_of(served, release, weight)["spec"]["rules"]
    return [*after, *made]
