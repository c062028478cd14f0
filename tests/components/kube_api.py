"""A Kubernetes API on loopback: custom objects of any group, made, read, replaced, patched and deleted."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

Answer = tuple[int, Any]
_PATH = re.compile(
    r"/apis/(?P<group>[^/]+)/(?P<version>[^/]+)/namespaces/(?P<namespace>[^/]+)/(?P<kind>[^/]+)(/(?P<name>[^/]+))?"
)


class KubeApi:
    """The server's state.

    Attributes:
        objects: by group, namespace, plural and name.
        allowed: whether a verb on an object is permitted, as RBAC would say.
        on_change: told of every object that is made or replaced, as a controller is.
        log: verb, plural and name of every call.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self.allowed: Callable[[str, str, str], bool] = lambda verb, kind, name: True
        self.on_change: Callable[[dict[str, Any]], None] = lambda made: None
        self.log: list[tuple[str, str, str]] = []
        self._version = 0

    def put(self, group: str, namespace: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """Keeps an object as if somebody had applied it."""
        self._version += 1
        kept = copy.deepcopy(body)
        kept["metadata"] |= {"namespace": namespace, "resourceVersion": str(self._version), "generation": 1}
        self.objects[group, namespace, kind, body["metadata"]["name"]] = kept
        return kept

    def answer(self, method: str, path: str, _query: dict[str, str], headers: Any, body: bytes) -> Answer:
        """What a request gets."""
        match = _PATH.fullmatch(path)
        if match is None:
            return self._status(404, "NotFound", f"no route {path}")
        given = json.loads(body) if body else {}
        name = match["name"] or given.get("metadata", {}).get("name", "")
        verb = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[method]
        self.log.append((verb, match["kind"], name))
        if not self.allowed(verb, match["kind"], name):
            return self._status(403, "Forbidden", f"cannot {verb} {match['kind']} {name}")
        key = (match["group"], match["namespace"], match["kind"], name)
        there = self.objects.get(key)
        if method == "POST":
            if there is not None:
                return self._status(409, "AlreadyExists", f"{name} already exists")
            made = self.put(*key[:3], given)
            self.on_change(made)
            return 201, made
        if there is None:
            return self._status(404, "NotFound", f"{name} not found")
        if method == "PUT":
            if given["metadata"].get("resourceVersion") != there["metadata"]["resourceVersion"]:
                return self._status(409, "Conflict", "the object has been modified")
            made = self.put(*key[:3], given)
            self.on_change(made)
            return 200, made
        if method == "PATCH":
            if headers["Content-Type"] != "application/merge-patch+json":
                return self._status(415, "UnsupportedMediaType", headers["Content-Type"])
            wanted = given.get("metadata", {}).pop("resourceVersion", there["metadata"]["resourceVersion"])
            if wanted != there["metadata"]["resourceVersion"]:
                return self._status(409, "Conflict", "the object has been modified")
            return 200, self.put(*key[:3], _merged(there, given))
        if method == "DELETE":
            return 200, self.objects.pop(key)
        return 200, there

    @staticmethod
    def _status(code: int, reason: str, message: str) -> Answer:
        return code, {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}


def _merged(there: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(there) if isinstance(there, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found
