"""Another namespace for everything: a second installation in one cluster, such as one for trying things out.

Objects keep their names within their namespaces. What is the whole cluster's, or lies in somebody else's namespace, is
named after the installation, so that no two installations share an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from k8s.workloads import Document

NAMESPACE: Final = "newfound"
# Names of namespaces: the installation's own, the gateway's, the profile's that runs pipelines.
_NAMES: Final = rf"{NAMESPACE}(-gateway|-pipelines)?(?![\w.-])"
# Text that names a namespace: principals, accounts, hosts, queries, settings within a ConfigMap.
_TEXT: Final = re.compile(
    rf"(/ns/|system:serviceaccount:|\bnewfound-[a-z]+\.|namespace=\\?\"|^ *namespace: ){_NAMES}", re.MULTILINE
)
_WHOLE: Final = re.compile(_NAMES)
_KEYS: Final = ("namespace", "kubernetes.io/metadata.name")
_VARIABLES: Final = ("NEWFOUND_KFP_NAMESPACE",)
_OTHERS: Final = re.compile(rf"^{NAMESPACE}(?=-)")


def in_namespace(documents: Sequence[Document], name: str) -> list[dict[str, Any]]:
    """Rendered objects of an installation in the namespace `name`; its gateway is in `name-gateway`.

    Args:
        documents: objects of an overlay.
        name: of the namespace. The profile that runs pipelines is `name-pipelines`.

    Raises:
        ValueError: it is no name of a namespace.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", name):
        raise ValueError(f"{name!r}: expected a namespace's name of at most 42 small letters, digits and hyphens")
    return [_renamed(document, name) for document in documents]


def _renamed(document: Document, name: str) -> dict[str, Any]:
    own = _WHOLE.fullmatch(document["metadata"].get("namespace", ""))
    made: dict[str, Any] = _walk(document, name)
    if document["kind"] == "Namespace":
        made["metadata"]["name"] = _namespace(document["metadata"]["name"], name)
    elif not own:
        made["metadata"]["name"] = _OTHERS.sub(name, document["metadata"]["name"])
    if "policyName" in made.get("spec", {}):
        made["spec"]["policyName"] = _OTHERS.sub(name, made["spec"]["policyName"])
    return made


def _walk(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        made = {key: _walk(inner, name) for key, inner in value.items()}
        for key in _KEYS:
            if isinstance(made.get(key), str):
                made[key] = _namespace(made[key], name)
        if made.get("name") in _VARIABLES:
            made["value"] = _namespace(made["value"], name)
        return made
    if isinstance(value, list):
        return list(_arguments(value, name))
    return _TEXT.sub(lambda found: f"{found[1]}{name}{found[2] or ''}", value) if isinstance(value, str) else value


def _arguments(values: Sequence[Any], name: str) -> Iterator[Any]:
    before = None
    for value in values:
        yield _namespace(value, name) if before == "--namespace" else _walk(value, name)
        before = value


def _namespace(text: str, name: str) -> str:
    found = _WHOLE.fullmatch(text)
    return f"{name}{found[1] or ''}" if found else text
