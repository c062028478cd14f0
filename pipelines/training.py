"""The training pipeline: raw interactions in, a verified release out.

Every parameter but `releases` and `previous` is one step's settings: a JSON string with the sections of the
configuration that the step reads and digests of the code and files that it depends on (`pipelines.settings` makes
them). So a step's cache key changes exactly when something does that the step depends on.
"""

from dataclasses import dataclass
from typing import Any, Final

from kfp import dsl

from components.build_clusters import build_clusters
from components.check_gates import check_gates
from components.evaluate import evaluate
from components.fetch_histories import fetch_histories
from components.finetune_planner import finetune_planner
from components.fit_decision import fit_decision
from components.load_interactions import load_interactions
from components.mine_transitions import mine_transitions
from components.publish_interests import publish_interests
from components.publish_release import publish_release
from components.run_experiment import run_experiment
from components.train_ranker import train_ranker
from components.write_features import write_features
from newfound.config import TrainingConfig
from pipelines.placement import Placement
from pipelines.platform import Platform
from pipelines.settings import DATA_FILES, MODEL_FILES, SECTIONS, TABLES, Step, settings_of

# By the pipeline's parameter.
STEPS: Final = {
    "data": Step("load_interactions", ("data", "split", *TABLES), DATA_FILES),
    "features": Step("write_features", ("features", *TABLES)),
    "histories": Step("fetch_histories", folders=("feature_repo",)),
    "clusters": Step("build_clusters", ("clusters",), ("clusters.file", "clusters.text_model")),
    "transitions": Step("mine_transitions", ("transitions", *TABLES)),
    "planner": Step("finetune_planner", ("planner",), ("planner.model",)),
    "table": Step("build_table", ("table",)),
    "tuning": Step("tune_ranker", ("ranker", "tuning")),
    "ranker": Step("train_ranker", ("ranker",)),
    "decision": Step("fit_decision", ("split", "transitions", "planner", "policy", "evaluation", *TABLES)),
    "experiment": Step("run_experiment", ("transitions", "policy", "evaluation", *TABLES)),
    "evaluation": Step("evaluate", tuple(name for name in SECTIONS if name != "refit"), MODEL_FILES),
    "gates": Step("check_gates", ("evaluation",)),
    "refit_transitions": Step("mine_transitions", ("transitions", *TABLES), refit=True),
    "refit_planner": Step("finetune_planner", ("planner",), ("planner.model",), refit=True),
    "refit_table": Step("build_table", ("table",), refit=True),
    "refit_decision": Step(
        "fit_decision", ("split", "transitions", "planner", "policy", "evaluation", *TABLES), refit=True
    ),
    "release": Step("publish_release", SECTIONS),
    "interests": Step("publish_interests", TABLES, folders=("feature_repo",)),
}


@dataclass(frozen=True)
class Fit:
    """Outputs of the steps that learn."""

    clusters: Any
    transitions: Any
    planner: Any
    table: Any
    tuned: Any
    ranker: Any
    decision: Any


def arguments(
    config: TrainingConfig, releases: str, *, previous: str = "", image: str | None = None
) -> dict[str, object]:
    """The pipeline's arguments.

    Args:
        config: the configuration.
        releases: folder or URL of all releases.
        previous: the release whose clusters live on under their ids, an id or `current`; empty: none.
        image: of the steps, on a cluster.
    """
    return {**settings_of(STEPS, config, image), "releases": releases, "previous": previous}


def define_training(platform: Platform | None = None, shards: int = 1) -> Any:
    """The pipeline for this machine, or for a cluster.

    Args:
        platform: the cluster.
        shards: of the table, where a cluster builds them side by side: `table.shards` of the configuration.
    """
    steps = Placement(platform, shards)

    @dsl.pipeline(
        name="newfound-training",
        description="Interests that a person never had: from raw interactions to a verified release",
    )
    def training(
        data: str,
        features: str,
        histories: str,
        clusters: str,
        transitions: str,
        planner: str,
        table: str,
        tuning: str,
        ranker: str,
        decision: str,
        experiment: str,
        evaluation: str,
        gates: str,
        refit_transitions: str,
        refit_planner: str,
        refit_table: str,
        refit_decision: str,
        release: str,
        interests: str,
        releases: str,
        previous: str = "",
    ):
        """Fits on the past, proves it on what came after, refits on everything, publishes.

        Args:
            data: settings of load_interactions.
            features: settings of write_features.
            histories: settings of fetch_histories.
            clusters: settings of build_clusters.
            transitions: settings of mine_transitions.
            planner: settings of finetune_planner.
            table: settings of build_table.
            tuning: settings of tune_ranker.
            ranker: settings of train_ranker.
            decision: settings of fit_decision.
            experiment: settings of run_experiment.
            evaluation: settings of evaluate.
            gates: settings of check_gates.
            refit_transitions: settings of mine_transitions on all data.
            refit_planner: settings of finetune_planner on all data.
            refit_table: settings of build_table for the release.
            refit_decision: settings of fit_decision for the release.
            release: settings of publish_release.
            interests: settings of publish_interests.
            releases: folder or URL of all releases.
            previous: the release whose clusters live on under their ids, an id or `current`; empty: none.
        """
        given = dict(locals())  # every step's settings, by parameter
        dataset = steps.place(load_interactions(settings=data)).outputs["dataset"]
        store = steps.place(write_features(dataset=dataset, settings=features)).outputs["features"]
        fit, evaluated = _prove(steps, given, dataset, store)
        passed = steps.place(check_gates(evaluation=evaluated, settings=gates))
        refit = _refit(steps, given, dataset, store, fit, passed)
        _publish(steps, given, dataset, store, refit, evaluated, passed.outputs["gates"])

    return training


def _prove(steps: Placement, given: dict[str, Any], dataset: Any, store: Any) -> tuple[Fit, Any]:
    """The fit that is learned from the past alone, and its evaluation on what came after."""
    past = fetch_histories(dataset=dataset, features=store, settings=given["histories"], as_of="cut")
    data = {"dataset": dataset, "histories": steps.place(past).outputs["histories"]}
    following = {"releases": given["releases"], "previous": given["previous"]}
    clusters = steps.place(build_clusters(**data, settings=given["clusters"], **following)).outputs["clusters"]
    mined = steps.place(mine_transitions(**data, clusters=clusters, settings=given["transitions"]))
    mined = mined.outputs["transitions"]
    planner = steps.train(finetune_planner, transitions=mined, clusters=clusters, settings=given["planner"])
    planner = planner.outputs["planner"]
    table = steps.build_table(planner=planner, clusters=clusters, transitions=mined, settings=given["table"])
    tuned = steps.tune_ranker(**data, clusters=clusters, settings=given["tuning"]).outputs["tuned"]
    ranker = steps.train(train_ranker, **data, clusters=clusters, tuned=tuned, settings=given["ranker"])
    parts = {"clusters": clusters, "transitions": mined, "table": table.outputs["table"]}
    parts["ranker"] = ranker.outputs["ranker"]
    decided = fit_decision(dataset=dataset, histories=data["histories"], **parts, settings=given["decision"])
    fit = Fit(**parts, planner=planner, tuned=tuned, decision=steps.place(decided).outputs["decision"])
    learned = {"clusters": clusters, "transitions": mined, "table": parts["table"]}
    tried = steps.place(run_experiment(dataset=dataset, **learned, settings=given["experiment"]))
    told = {"experiment": tried.outputs["experiment"], "settings": given["evaluation"]}
    evaluated = steps.place(evaluate(**data, **vars(fit), **told))
    return fit, evaluated.outputs["evaluation"]


def _refit(steps: Placement, given: dict[str, Any], dataset: Any, store: Any, fit: Fit, passed: Any) -> Fit:
    """The same on all data, once the gates have held. The clusters stay those that were judged."""
    whole = fetch_histories(dataset=dataset, features=store, settings=given["histories"], as_of="end")
    whole = steps.place(whole, refit=True).after(passed)
    data = {"dataset": dataset, "histories": whole.outputs["histories"], "clusters": fit.clusters}
    mined = steps.place(mine_transitions(**data, settings=given["refit_transitions"]), refit=True)
    learned = {"transitions": mined.outputs["transitions"], "clusters": fit.clusters}
    refitted = {"settings": given["refit_planner"], "init": fit.planner}
    planner = steps.train(finetune_planner, refit=True, **learned, **refitted).outputs["planner"]
    table = steps.build_table(refit=True, planner=planner, **learned, settings=given["refit_table"])
    chosen = {"tuned": fit.tuned, "measured": fit.ranker, "settings": given["ranker"]}
    ranker = steps.train(train_ranker, refit=True, **data, **chosen)
    parts = {**learned, "table": table.outputs["table"], "ranker": ranker.outputs["ranker"]}
    decided = fit_decision(
        dataset=dataset,
        histories=data["histories"],
        **parts,
        settings=given["refit_decision"],
        measured=fit.decision,
    )
    decided = steps.place(decided, refit=True)
    return Fit(**parts, planner=planner, tuned=fit.tuned, decision=decided.outputs["decision"])


def _publish(
    steps: Placement, given: dict[str, Any], dataset: Any, store: Any, fit: Fit, evaluated: Any, verdict: Any
) -> None:
    """The release of a fit, and what Feast keeps for it."""
    published = publish_release(
        dataset=dataset,
        clusters=fit.clusters,
        planner=fit.planner,
        table=fit.table,
        ranker=fit.ranker,
        decision=fit.decision,
        evaluation=evaluated,
        gates=verdict,
        settings=given["release"],
        releases=given["releases"],
        promote=not steps.has_canary,
    )
    published = steps.place_always(published)
    if steps.has_canary:
        # Feast keeps the interests for the release that serves nearly everybody; `pipelines.interests` follows.
        steps.deploy(published=published.outputs["release"], gates=verdict, settings=given["gates"])
        return
    written = publish_interests(dataset=dataset, features=store, clusters=fit.clusters, settings=given["interests"])
    steps.place_always(written).after(published)


training = define_training()
