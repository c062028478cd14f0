"""The training pipeline: raw interactions in, a verified release out.

Every parameter but `releases` is one step's settings: a JSON string with the sections of the configuration that the
step reads and digests of the code and files that it depends on (`pipelines.settings` makes them). So a step's cache
key changes exactly when something does that the step depends on.

On a cluster (`pipelines.platform`) the same steps are spread over pods: workers share the search for the ranker's
settings, shards of the table are built side by side, Kubeflow Trainer runs what trains, and the release is deployed.
"""

from typing import Any

from kfp import dsl

from components.build_clusters import build_clusters
from components.build_table import build_table
from components.build_table_shard import build_table_shard
from components.check_gates import check_gates
from components.deploy_release import deploy_release
from components.evaluate import evaluate
from components.fetch_histories import fetch_histories
from components.finetune_planner import finetune_planner
from components.load_interactions import load_interactions
from components.merge_table import merge_table
from components.mine_transitions import mine_transitions
from components.publish_interests import publish_interests
from components.publish_release import publish_release
from components.train_ranker import train_ranker
from components.tune_ranker import tune_ranker
from components.write_features import write_features
from pipelines.platform import Platform, placing


def define_training(platform: Platform | None = None, shards: int = 1) -> Any:
    """The pipeline for this machine, or for a cluster.

    Args:
        platform: the cluster.
        shards: of the table, where a cluster builds them side by side: `table.shards` of the configuration.
    """
    place, place_always = placing(platform)

    def train(component, **inputs):
        """finetune_planner or train_ranker, in a pod of its own or as a TrainJob."""
        job = platform.train_job(component.name.replace("-", "_")) if platform else ""
        return place(component(**inputs, **({"job": job} if job else {})))

    def answer(**inputs):
        """build_table, or its shards side by side."""
        if platform is None or platform.table_shards_at_once == 1:
            return place(build_table(**inputs))
        with dsl.ParallelFor(list(range(shards)), parallelism=platform.table_shards_at_once) as shard:
            built = place(build_table_shard(shard=shard, **inputs))
        return place(merge_table(parts=dsl.Collected(built.outputs["part"]), **inputs))

    def search(**inputs):
        """tune_ranker, by one worker or several that share a study; the last only writes down what they found."""
        if platform is None or platform.tuning_workers == 1:
            return place(tune_ranker(**inputs))
        with dsl.ParallelFor(list(range(platform.tuning_workers))) as _:
            worker = place_always(tune_ranker(**inputs))
        return place(tune_ranker(**inputs)).after(worker)

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
            evaluation: settings of evaluate.
            gates: settings of check_gates.
            refit_transitions: settings of mine_transitions on all data.
            refit_planner: settings of finetune_planner on all data.
            refit_table: settings of build_table for the release.
            release: settings of publish_release.
            interests: settings of publish_interests.
            releases: folder or URL of all releases.
            previous: the release whose clusters live on under their ids, an id or `current`; empty: none.
        """
        loaded = place(load_interactions(settings=data))
        dataset = loaded.outputs["dataset"]
        applied = place(write_features(dataset=dataset, settings=features))
        store = applied.outputs["features"]

        # What is learned from the past alone, and judged by what came after.
        past = place(fetch_histories(dataset=dataset, features=store, settings=histories, as_of="cut"))
        past = past.outputs["histories"]
        following = {"releases": releases, "previous": previous}
        built = place(build_clusters(dataset=dataset, histories=past, settings=clusters, **following))
        built = built.outputs["clusters"]
        mined = place(mine_transitions(dataset=dataset, histories=past, clusters=built, settings=transitions))
        mined = mined.outputs["transitions"]
        tuned_planner = train(finetune_planner, transitions=mined, clusters=built, settings=planner).outputs["planner"]
        answers = answer(planner=tuned_planner, clusters=built, transitions=mined, settings=table).outputs["table"]
        tuned = search(dataset=dataset, histories=past, clusters=built, settings=tuning).outputs["tuned"]
        trained = train(train_ranker, dataset=dataset, histories=past, clusters=built, tuned=tuned, settings=ranker)
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
        )
        evaluated = place(evaluated).outputs["evaluation"]
        passed = place(check_gates(evaluation=evaluated, settings=gates))

        # Only then, the same on all data. The clusters stay those that were judged.
        whole = place(fetch_histories(dataset=dataset, features=store, settings=histories, as_of="end")).after(passed)
        whole = whole.set_display_name("fetch-histories (refit)").outputs["histories"]
        remined = place(mine_transitions(dataset=dataset, histories=whole, clusters=built, settings=refit_transitions))
        remined = remined.set_display_name("mine-transitions (refit)").outputs["transitions"]
        replanned = train(
            finetune_planner, transitions=remined, clusters=built, settings=refit_planner, init=tuned_planner
        )
        replanned = replanned.set_display_name("finetune-planner (refit)").outputs["planner"]
        retabled = answer(planner=replanned, clusters=built, transitions=remined, settings=refit_table)
        retabled = retabled.set_display_name("build-table (refit)").outputs["table"]
        reranked = train(train_ranker, dataset=dataset, histories=whole, clusters=built, tuned=tuned, settings=ranker)
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
            promote=platform is None or platform.canary is None,
        )
        published = place_always(published)
        if platform is not None and platform.canary is not None:
            # Feast keeps the interests for the release that serves nearly everybody; `pipelines.interests` follows.
            deployed = deploy_release(
                published=published.outputs["release"],
                gates=passed.outputs["gates"],
                settings=gates,
                canary=platform.canary.model_dump_json(),
            )
            place_always(deployed)
            return
        written = publish_interests(dataset=dataset, features=store, clusters=built, settings=interests)
        place_always(written).after(published)

    return training


training = define_training()
