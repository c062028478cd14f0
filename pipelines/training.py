"""The training pipeline: raw interactions in, a verified release out.

Every parameter but `releases` is one step's settings: a JSON string with the sections of the configuration that the
step reads and digests of the code and files that it depends on (`pipelines.settings` makes them). So a step's cache
key changes exactly when something does that the step depends on.
"""

from kfp import dsl

from components.apply_features import apply_features
from components.build_clusters import build_clusters
from components.build_table import build_table
from components.check_gates import check_gates
from components.evaluate import evaluate
from components.fetch_histories import fetch_histories
from components.finetune_planner import finetune_planner
from components.load_interactions import load_interactions
from components.mine_transitions import mine_transitions
from components.publish_interests import publish_interests
from components.publish_release import publish_release
from components.train_ranker import train_ranker
from components.tune_ranker import tune_ranker


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
    evaluation: str,
    gates: str,
    refit_transitions: str,
    refit_planner: str,
    refit_table: str,
    release: str,
    interests: str,
    releases: str,
):
    """Fits on the past, proves it on what came after, refits on everything, publishes.

    Args:
        data: settings of load_interactions.
        features: settings of apply_features.
        histories: settings of fetch_histories.
        clusters: settings of build_clusters.
        transitions: settings of mine_transitions.
        planner: settings of finetune_planner.
        table: settings of build_table.
        tuning: settings of tune_ranker.
        ranker: settings of train_ranker.
        evaluation: settings of evaluate.
        gates: settings of check_gates.
        refit_transitions: settings of mine_transitions on all data.
        refit_planner: settings of finetune_planner on all data.
        refit_table: settings of build_table for the release.
        release: settings of publish_release.
        interests: settings of publish_interests.
        releases: folder or URL of all releases.
    """
    loaded = load_interactions(settings=data)
    dataset = loaded.outputs["dataset"]
    applied = apply_features(dataset=dataset, settings=features)
    store = applied.outputs["features"]

    # What is learned from the past alone, and judged by what came after.
    past = fetch_histories(dataset=dataset, features=store, settings=histories, as_of="cut").outputs["histories"]
    built = build_clusters(dataset=dataset, histories=past, settings=clusters).outputs["clusters"]
    mined = mine_transitions(dataset=dataset, histories=past, clusters=built, settings=transitions)
    mined = mined.outputs["transitions"]
    tuned_planner = finetune_planner(transitions=mined, clusters=built, settings=planner).outputs["planner"]
    answers = build_table(planner=tuned_planner, clusters=built, transitions=mined, settings=table).outputs["table"]
    tuned = tune_ranker(dataset=dataset, histories=past, clusters=built, settings=tuning).outputs["tuned"]
    trained = train_ranker(dataset=dataset, histories=past, clusters=built, tuned=tuned, settings=ranker)
    evaluated = evaluate(
        dataset=dataset,
        histories=past,
        clusters=built,
        transitions=mined,
        planner=tuned_planner,
        table=answers,
        tuned=tuned,
        ranker=trained.outputs["ranker"],
        settings=evaluation,
    ).outputs["evaluation"]
    passed = check_gates(evaluation=evaluated, settings=gates)

    # Only then, the same on all data. The clusters stay those that were judged.
    whole = fetch_histories(dataset=dataset, features=store, settings=histories, as_of="end").after(passed)
    whole = whole.set_display_name("fetch-histories (refit)").outputs["histories"]
    remined = mine_transitions(dataset=dataset, histories=whole, clusters=built, settings=refit_transitions)
    remined = remined.set_display_name("mine-transitions (refit)").outputs["transitions"]
    replanned = finetune_planner(transitions=remined, clusters=built, settings=refit_planner, init=tuned_planner)
    replanned = replanned.set_display_name("finetune-planner (refit)").outputs["planner"]
    retabled = build_table(planner=replanned, clusters=built, transitions=remined, settings=refit_table)
    retabled = retabled.set_display_name("build-table (refit)").outputs["table"]
    reranked = train_ranker(dataset=dataset, histories=whole, clusters=built, tuned=tuned, settings=ranker)
    reranked = reranked.set_display_name("train-ranker (refit)").outputs["ranker"]
    published = publish_release(
        dataset=dataset,
        clusters=built,
        planner=replanned,
        table=retabled,
        ranker=reranked,
        evaluation=evaluated,
        gates=passed.outputs["gates"],
        settings=release,
        releases=releases,
    )
    publish_interests(dataset=dataset, features=store, clusters=built, settings=interests).after(published)
