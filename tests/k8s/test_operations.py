"""docs/operations.md followed word by word: every command, file, Secret, digest and object that it names.

kubectl is the real one where it needs no server; servers' own parsers read what they are given.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from typer.main import get_command

from components._canary import MANAGER, canary_name
from k8s.kustomize import ROOT, kubectl
from k8s.workloads import of_kind, services, workloads
from tests.k8s.conftest import Documents
from tests.k8s.references import environment, expanded, referenced
from tests.k8s.servers import _click, parsed

TEXT: Final = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
BLOCKS: Final = [
    re.sub(r"^ {0,3}", "", one, flags=re.MULTILINE) for one in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
]
OURS: Final = ("newfound", "newfound-gateway")
PROFILE: Final = "newfound-pipelines"  # Kubeflow makes it
MAKEFILES: Final = (ROOT / "Makefile", *sorted((ROOT / "mk").glob("*.mk")))
EXAMPLES: Final = ("newfound-canary-0123456789ab", "newfound-planner-canary-0123456789ab")


def commands() -> list[list[str]]:
    """Every command of every block, in the text's order; pipes are taken apart."""
    found = []
    for block in BLOCKS:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "|" in words:
                found.append(words[: words.index("|")])
                words = words[words.index("|") + 1 :]
            if words:
                found.append(words)
    return found


def _of(verb: str) -> list[list[str]]:
    return [words for words in commands() if words[0] == "kubectl" and verb in words]


def _option(words: Sequence[str], name: str) -> str | None:
    """A flag's value, as `--name value` or `--name=value`."""
    for at, word in enumerate(words):
        if word == name:
            return words[at + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _made_secrets() -> dict[tuple[str, str], set[str]]:
    made: dict[tuple[str, str], set[str]] = {}
    for words in _of("generic"):
        keys = {word.split("=")[1] for word in words if word.startswith("--from-literal=")}
        made[str(_option(words, "-n")), words[words.index("generic") + 1]] = keys
    return made


def test_every_command_is_one_that_is_followed_here() -> None:
    """A command of another kind needs a check of its own."""
    verbs = {" ".join(word for word in words if not word.startswith("-"))[:60].split()[0] for words in commands()}
    verbs = {verb for verb in verbs if "=" not in verb}
    assert verbs == {"kubectl", "python", "curl", "cd", "sha256sum", "aws", "for", "done"}
    known = {"create", "set", "apply", "logs", "delete", "scale", "wait", "patch", "rollout", "exec"}
    for words in commands():
        if words[0] == "kubectl":
            plain = words[3:] if words[1] == "-n" else words[1:]
            assert plain[0] in known, words


def test_secrets_are_made_where_and_as_they_are_named(production: Documents) -> None:
    """Each key that a pod or a pipeline's step names, in the namespace where it runs."""
    made = _made_secrets()
    for workload in workloads(production):
        for kind, name, key in referenced(workload):
            if kind == "Secret":
                assert (workload.namespace, name) in made, (workload.owner, name)
                assert key is None or key in made[workload.namespace, name], (workload.owner, name, key)
    platform = yaml.safe_load((ROOT / "pipelines/platforms/production.yaml").read_text())
    for secret in platform["secrets"].values():
        assert secret["key"] in made.get((PROFILE, secret["name"]), set()), f"nobody makes {secret} in the profile"
    named = {
        (one.namespace, name) for one in workloads(production) for kind, name, _ in referenced(one) if kind == "Secret"
    }
    named |= {(PROFILE, secret["name"]) for secret in platform["secrets"].values()}
    assert set(made) == named, "made, and used by nobody"


def test_the_order_holds() -> None:
    """Namespaces before what is in them, Secrets before what runs with them, a release before what it was made of."""
    steps = [" ".join(words) for words in commands()]

    def first(text: str) -> int:
        return next(at for at, step in enumerate(steps) if text in step)

    for namespace in OURS:
        assert first(f"create namespace {namespace}") < first(
            f"-n {namespace} " if namespace == "newfound" else "apply"
        )
    assert max(at for at, step in enumerate(steps) if "create secret" in step) < first("apply --server-side")
    assert first("apply --server-side") < first("pipelines submit training") < first("cronjob/newfound-import")
    images, digests = TEXT.index("make images"), TEXT.index("write their digests")
    assert images < digests < TEXT.index("kubectl apply --server-side -k")
    assert "apply -k" not in TEXT and "exec -i" not in TEXT


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:k8s|pipelines|docs|monitoring|overlays|components)/[\w./-]+)`", TEXT))
    named |= set(re.findall(r"\]\(([\w./-]+)\)", TEXT))
    assert len(named) > 25
    for name in named:
        places = [ROOT / name, ROOT / "docs" / name, ROOT / "k8s" / name, ROOT / "k8s/overlays/production" / name]
        assert any(place.exists() for place in places), name
    for words in _of("apply"):
        if folder := _option(words, "-k"):
            assert (ROOT / folder / "kustomization.yaml").is_file() and "--server-side" in words


def test_digests_are_in_the_two_files_that_are_named() -> None:
    """Zeros are nobody's: the text tells where to write each, and no image carries another one's digest."""
    zeros = "sha256:" + "0" * 64
    found = {
        file.relative_to(ROOT).as_posix()
        for folder in ("k8s", "pipelines")
        for file in (ROOT / folder).rglob("*.yaml")
        if zeros in file.read_text(encoding="utf-8")
    }
    assert found == {"k8s/overlays/production/kustomization.yaml", "pipelines/platforms/production.yaml"}
    assert all(name in TEXT for name in found)


def test_jobs_by_hand_come_from_templates_and_start_as_they_are_told(production: Documents) -> None:
    templates = {one["metadata"]["name"]: one for one in of_kind(production, "CronJob")}
    running = {one.owner: one for one in workloads(production)}
    joined = [" ".join(block.replace("\\\n", " ").split()) for block in BLOCKS]
    made = [one for text in joined for one in re.findall(r"create job [\w-]+ --from=cronjob/.*?(?=kubectl -n|$)", text)]
    assert len(made) == 5
    for command in made:
        name = str(re.findall(r"cronjob/([\w-]+)", command)[0])
        template = templates[name]
        assert template["spec"]["suspend"] is True
        changed = dict(re.findall(r"\b([A-Z]+)=(\S+)", command))
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "one"}}
        job = _set_env({**job, "spec": template["spec"]["jobTemplate"]["spec"]}, changed)
        container = job["spec"]["template"]["spec"]["containers"][0]
        known = environment(running[f"CronJob/{name}"], container, production)
        assert known.items() >= changed.items(), "kubectl sets variables that the template has"
        before = {
            one["name"] for one in template["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"]
        }
        assert changed.keys() <= before
        if container["command"][0] == "python":
            parsed(
                container["command"][2],
                [*container["command"][3:], *(expanded(one, known) for one in container["args"])],
            )


def _set_env(job: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """The command of the text itself, on what `create job --from` makes."""
    if not variables:
        return job
    told = [f"{name}={value}" for name, value in variables.items()]
    command = [str(kubectl()), "set", "env", "--local", "-f", "-", "-o", "json", *told]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_objects_that_are_named_exist(production: Documents, rendered: Any) -> None:
    there = {one["metadata"]["name"] for one in [*production, *rendered("local")]} | {
        PROFILE,
        "newfound-submits",
        "newfound-object-store",
        "newfound-postgres-0",
        "newfound-roles",
    }
    there |= {name for _, name in _made_secrets()} | {
        "newfound-tls",
        "newfound-train",
        "newfound-vllm",
        MANAGER,
        *EXAMPLES,
    }
    there = {re.sub(r"-[a-z0-9]{10}$", "", name) for name in there} | there
    there |= {service.name for service in services(production)} | {"newfound-canary"}
    for name in set(re.findall(r"\bnewfound-[a-z0-9-]+[a-z0-9]\b", TEXT)) - {"newfound-monitor", "newfound-serve"}:
        assert name in there or name.startswith("newfound-2026"), name
    for words in _of("scale"):
        assert words[words.index("deployment") + 1] in there
    accounts = {one["metadata"]["name"] for one in of_kind(production, "ServiceAccount")}
    for words in _of("rolebinding"):
        named = [word.split(":")[1] for word in words if word.startswith("--serviceaccount=newfound:")]
        assert named and set(named) <= accounts
    submits = {
        one.owner.split("/")[1]
        for one in workloads(production)
        if {"--submit", "--host"} & set(one.containers[0].get("args", ())) and one.owner.startswith("CronJob/")
    }
    assert submits == set(named), "who submits has the right to"


def test_newfounds_own_commands_are_understood() -> None:
    from newfound.cli import app as newfound_app
    from pipelines.__main__ import app as pipelines_app

    told = [shlex.split(one) for one in re.findall(r"`((?:python -m pipelines|newfound) [^`]+)`", TEXT)]
    told += [words for words in commands() if words[0] == "python"]
    assert len(told) >= 3
    for words in told:
        if words[0] == "newfound":
            _click(get_command(newfound_app), words[1:])
        elif words[3:] != ["submit", "interests"]:  # named without its options
            _click(get_command(pipelines_app), words[3:])


def test_a_base_planner_is_put_where_it_is_fetched_from(tmp_path: Path) -> None:
    """The block's own commands in a shell, with a folder for the bucket; then what `planner.model` at a URL does."""
    from newfound.planner.fetched_model import fetch_model

    (block,) = [one for one in BLOCKS if "SHA256SUMS" in one]
    base, bucket = tmp_path / "base", tmp_path / "bucket"
    base.mkdir()
    for name in ("config.json", "model.safetensors"):
        (base / name).write_text(name)
    aws = f'aws() {{ [ "$1 $2 $3" = "s3 cp --recursive" ] && mkdir -p "{bucket}" && cp -r "$4/." "{bucket}/"; }}'
    command = ["bash", "-ec", f"{aws}\n{block}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    fetched = fetch_model(bucket.as_uri(), done.stdout.split()[0], tmp_path / "fetched")
    assert (fetched / "model.safetensors").read_text() == "model.safetensors"
    assert "planner.model_sha256" in TEXT and "`planner.model` is the URL" in TEXT


def _section(title: str) -> str:
    """A chapter's text."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_chapter_is_there_and_has_its_commands() -> None:
    """Install, upgrade, canary, rollback, restore, erase; inline commands are kubectl's, newfound's or make's own."""
    chapters = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    wanted = ["Install from nothing", "Upgrade", "Canary", "Roll back", "Back up", "Erase a person"]
    assert [one for one in chapters if one in wanted] == wanted
    for title in wanted:
        assert re.search(r"```sh|`(kubectl|newfound|make) ", _section(title)), title
    targets = set(re.findall(r"^([a-z-]+):", "".join(file.read_text() for file in MAKEFILES), re.MULTILINE))
    inline = [shlex.split(one.replace("\n", " ")) for one in re.findall(r"`((?:kubectl|make) [^`]+)`", TEXT)]
    assert len(inline) >= 8
    for words in inline:
        if words[0] == "make":
            assert words[1] in targets, words
        elif folder := _option(words, "-k"):
            assert (
                (ROOT / folder / "kustomization.yaml").is_file()
                and "--server-side" in words
                or "--dry-run=server" in words
            )


def test_a_release_is_rolled_back_by_commands_that_there_are() -> None:
    from newfound.cli import app

    (told,) = re.findall(r"`(newfound release rollback [^`]+)`", _section("Roll back"))
    assert "(or `--to`, an id)" in _section("Roll back")
    for words in (shlex.split(told), [*shlex.split(told), "--to", "20260101T000000-0123456789ab"]):
        assert "s3://your-bucket/releases" in _click(get_command(app), words[1:]).values()


def test_a_canary_that_is_deleted_is_the_one_that_was_judged() -> None:
    chapter = _section("Canary")
    judged = set(re.findall(r"CANARY=(\S+)", chapter))
    deleted = {name for words in _of("delete") for name in words if "canary" in name}
    assert deleted == {canary_name(name, release) for release in judged for name in ("newfound", "newfound-planner")}
    assert deleted <= set(EXAMPLES)
    by_hand = ROOT / "k8s/components/canary/kustomization.yaml"
    assert "`../../components/canary`" in chapter and by_hand.is_file()
    assert re.search(r"^ +weight: 5$|weight: 5\b", by_hand.read_text(), re.MULTILINE), "the weights are there"


def test_a_dump_is_brought_back_while_nobody_writes(production: Documents) -> None:
    """Stopped, restored, forgotten again, started: each waits for the one before, and all who wrote come back."""
    (block,) = [one for one in BLOCKS if "cronjob/newfound-restore" in one]
    steps = [line for line in block.replace("\\\n", " ").splitlines() if line]
    kinds = [re.findall(r"scale deployment|create job|wait --for=condition=complete", one)[0] for one in steps]
    assert kinds == ["scale deployment", *["create job", "wait --for=condition=complete"] * 2, "scale deployment"]
    for made, waited in zip(steps[1:5:2], steps[2:5:2], strict=True):
        (name,) = re.findall(r"create job ([\w-]+) ", made)
        assert waited.endswith(f"job/{name}")
    assert steps[0].endswith("--replicas=0")
    (scaled,) = of_kind(production, "ScaledObject")
    assert steps[-1].endswith(f"--replicas={scaled['spec']['minReplicaCount']}")
    assert f"annotate scaledobject {scaled['metadata']['name']}" in " ".join(_section("Back up").split())
    limits = {one["metadata"]["name"]: one["spec"]["jobTemplate"]["spec"] for one in of_kind(production, "CronJob")}
    for name in ("newfound-restore", "newfound-erase"):
        assert limits[name]["activeDeadlineSeconds"] <= 7200 or "--timeout=2h" in block


def test_names_and_urls_to_change_are_where_the_text_says(production: Documents) -> None:
    """Placeholders: bucket, host, issuers, addresses, each in the files that the first step names, and nowhere else."""
    step = TEXT[TEXT.index("1. **Names.**") : TEXT.index("2. **Images.**")]
    step += TEXT[TEXT.index("### Stores of your own") : TEXT.index("### On one node")]
    named = {*re.findall(r"`((?:k8s|pipelines|monitoring)/[\w./-]+)`", step)}
    # Made from monitoring/rules; an example; replaced by addresses.yaml.
    named |= {"k8s/base/monitoring/rules.yaml", "k8s/gitops/argocd.yaml", "k8s/base/network/object-store.yaml"}
    placeholder = re.compile(r"your-bucket|newfound\.example\.com|auth\.example\.com|your-issuer|203\.0\.113\.")
    found = {
        file.relative_to(ROOT).as_posix()
        for folder in ("k8s", "pipelines", "monitoring")
        for file in (ROOT / folder).rglob("*.yaml")
        if placeholder.search(file.read_text(encoding="utf-8"))
        and "overlays/local" not in file.as_posix()
        and not file.name.endswith("_test.yaml")
    }
    assert found <= named, found - named
    plain = {"k8s/gitops/argocd.yaml", "k8s/components/private-object-store/kustomization.yaml"}  # other examples
    assert named - found <= plain, "named, and nothing to change there"


def test_the_request_is_one_that_is_let_in(production: Documents) -> None:
    (curl,) = [words for words in commands() if words[0] == "curl"]
    host, _, path = curl[1].removeprefix("https://").partition("/")
    (route,) = of_kind(production, "HTTPRoute")
    assert host in route["spec"]["hostnames"]
    paths = [match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    assert f"/{path}" in paths and json.loads(curl[curl.index("-d") + 1])["instances"]


@pytest.mark.parametrize("need", ["1.30", "0.16", "0.11", "2.15", "2.2", "1.27"])
def test_minimum_versions_are_said(need: str) -> None:
    table = TEXT[TEXT.index("## What a cluster needs") : TEXT.index("## Install from nothing")]
    assert f"| {need}" in table
