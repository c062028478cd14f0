"""The training pipeline in containers, on a slice of MovieLens-100K. `make run-containers`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from newfound.release import store as releases
from tests.images.conftest import TAG, TARGETS, Trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_every_image_says_what_it_is(docker_client: Any) -> None:
    for target in TARGETS:
        image = docker_client.images.get(f"newfound-{target}:{TAG}")
        labels = image.attrs["Config"]["Labels"]
        assert labels["org.opencontainers.image.title"] == f"newfound-{target}"
        assert labels["org.opencontainers.image.version"] == TAG
        assert image.attrs["Config"]["User"] == "1000:1000"
        assert image.attrs["Config"]["WorkingDir"] == "/app"
        print(f"\n{image.tags[0]}: {image.attrs['Size'] / 1e6:,.0f} MB, {len(image.attrs['RootFS']['Layers'])} layers")


def test_every_image_carries_its_bill_of_materials_and_nothing_of_the_build(docker_client: Any) -> None:
    for target in TARGETS:
        script = (
            "import importlib.metadata as m, json, pathlib; "
            f"bill = json.load(open('/usr/share/sbom/newfound-{target}.cdx.json')); "
            "print(json.dumps({'listed': {c['name'].lower().replace('_', '-') for c in bill['components']}.__len__(), "
            "'missing': sorted({d.metadata['Name'].lower().replace('_', '-') for d in m.distributions()} "
            "- {c['name'].lower().replace('_', '-') for c in bill['components']} - {'newfound'}), "
            "'tools': [p for p in ('/opt/tools', '/wheels', '/run/secrets/ca', '/src') if pathlib.Path(p).exists()], "
            "'pip': pathlib.Path('/etc/pip.conf').exists()}))"
        )
        said = docker_client.containers.run(
            f"newfound-{target}:{TAG}", ["python", "-c", script], network_mode="none", read_only=True, remove=True
        )
        found = json.loads(said)
        assert found["listed"] > 50
        assert (found["missing"], found["tools"], found["pip"]) == ([], [], False)
        history = json.dumps(docker_client.images.get(f"newfound-{target}:{TAG}").history())
        assert "index-url" not in history and "BEGIN CERTIFICATE" not in history


def test_the_whole_pipeline_runs_in_containers_and_publishes(trained: Trained) -> None:
    finished = [line for line in trained.output.splitlines() if line.startswith("✓")]
    assert len(finished) == _steps(trained.output) and not any("cached" in line for line in finished)
    manifest = releases.verify(str(trained.pipeline.releases))
    assert {name.split("/")[0] for name in manifest.files} == {
        "clusters",
        "planner",
        "table",
        "ranker",
        "decision",
        "items.parquet",
    }
    print("", *finished, f"{len(finished)} steps in containers: {trained.seconds:.0f} s", sep="\n")


def test_the_steps_ran_as_somebody_without_rights(trained: Trained) -> None:
    release = releases.load(str(trained.pipeline.releases)).path / "manifest.json"
    assert release.stat().st_uid != 0


def test_what_ran_in_containers_comes_from_the_cache(trained: Trained) -> None:
    done = trained.pipeline.run("--containers")
    assert done.returncode == 0, done.stdout + done.stderr
    cached = [line for line in done.stdout.splitlines() if line.startswith("✓") and "cached" in line]
    assert len(cached) == _steps(done.stdout)


def _steps(output: str) -> int:
    """How many there are, by the first line of the progress: `→  1/21 load interactions`."""
    return int(output.split("/", 1)[1].split()[0])
