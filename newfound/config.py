"""Configuration: one frozen pydantic model a step, unknown keys refused, read once in `main()`.

`pipelines/configs/local.yaml` names and explains every setting of `TrainingConfig`. The services' settings are
`serving.settings` and `monitoring.settings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from newfound.errors import ConfigError
from newfound.files import read_yaml
from newfound.settings import Positive, Settings, Share, checked

FOLDER_LOADERS: Final = ("movielens", "movietweetings")


class DataConfig(Settings):
    """Source of the interactions, and the meaning of a rating."""

    loader: Literal["movielens-100k", "movielens", "movietweetings", "files"] = "movielens-100k"
    folder: str | None = None  # for movielens and movietweetings
    interactions: str | None = None  # for files: Parquet or CSV; .txt with a user and their items in order on each line
    items: str | None = None  # for files: Parquet or CSV; absent means ids alone
    # engagement = (rating - low) / (high - low); None: the loader's own scale. With loader files, a column `rating` is
    # read where a scale is given and the file has no column `engagement`.
    rating_scale: tuple[float, float] | None = None
    # engagement from which an interaction is positive, where the source does not say. None: the loader's own; MovieLens
    # rating 4 of 5, MovieTweetings 8 of 10, files 0.5
    positive_at: Share | None = None
    # what the time column holds. auto: datetimes, or integers told apart by their size: from 1e8 seconds, from 7.3e9
    # milliseconds, below an ordinal
    time: Literal["auto", "datetime", "seconds", "milliseconds", "ordinal"] = "auto"
    bad_rows: Share = 0.0  # share of bad rows that is dropped, counted and reported instead of refused
    # users and items with fewer events are left out, again and again until none is left to leave out
    min_user_events: Positive = 5
    min_item_events: Annotated[int, Field(ge=0)] = 1  # 0 keeps items in the catalogue that nobody consumed yet

    @model_validator(mode="after")
    def _sources(self) -> DataConfig:
        if self.loader in FOLDER_LOADERS and not self.folder:
            raise ValueError(f"loader {self.loader!r} needs `folder`")
        if self.folder and self.loader not in FOLDER_LOADERS:
            raise ValueError(f"loader {self.loader!r} reads no `folder`; expected {' or '.join(FOLDER_LOADERS)}")
        if self.loader == "files" and not self.interactions:
            raise ValueError("loader 'files' needs `interactions`")
        if self.rating_scale is not None and self.rating_scale[0] >= self.rating_scale[1]:
            raise ValueError("`rating_scale` needs its lower end first")
        return self


class SplitConfig(Settings):
    """One cut between past and future, and disjoint groups of users."""

    # global: one moment for everybody, for genuine timestamps. user: each user's last events; other users' later events
    # then leak into what is learned, which the report states.
    cut: Literal["global", "user"] = "user"
    future: Annotated[float, Field(gt=0, lt=1)] = 0.2  # share of the events that come after the cut
    test_users: Annotated[float, Field(gt=0, lt=1)] = 0.25
    validation_users: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _somebody_to_learn_from(self) -> SplitConfig:
        if self.test_users + self.validation_users >= 1:
            raise ValueError("`test_users` and `validation_users` leave no users to learn from")
        return self


class FeaturesConfig(Settings):
    """A user's history as Feast keeps it."""

    history_length: Positive = 1000  # events a row; the paper's look-back


class ClustersConfig(Settings):
    """Interest clusters: how they are found, and how they are described."""

    source: Literal["learned", "categories", "file"] = "learned"
    file: str | None = None  # for source file: columns item_id, cluster, and optionally description
    coarse_sizes: tuple[Positive, ...] = (8,)  # clusters at each level above the interface, coarsest first
    # clusters at the interface level, where learned; None: as many as items, liked events and users carry, at most 120
    interface_size: Annotated[int, Field(ge=2)] | None = None
    leaf_items: Positive = 8  # about how many items a leaf holds, below the interface level
    balance: Share = 0.5  # 0: nearest centroid; 1: equal traffic
    text_model: str | None = None  # a sentence-transformers folder or name; None: the packaged MiniLM
    behaviour_dim: Positive = 64  # dimensions of the co-consumption vectors
    behaviour_weight: Share = 0.5  # 0: text alone; 1: co-consumption alone
    keywords: Annotated[int, Field(ge=1, le=10)] = 4  # phrases in a description, a name among them
    # who writes the descriptions; llm: a chat model behind an OpenAI-compatible URL, with keyphrases where it fails
    describer: Literal["keyphrases", "llm"] = "keyphrases"
    describer_url: str | None = None  # without /v1
    describer_model: str = "describer"  # the name under which it is served
    describer_cache: str | None = None  # JSON file of what it wrote, so that a run that was stopped asks no more

    @model_validator(mode="after")
    def _somebody_writes(self) -> ClustersConfig:
        if self.describer == "llm" and not self.describer_url:
            raise ValueError("describer 'llm' needs `describer_url`")
        return self


class TransitionsConfig(Settings):
    """Novel transitions, and the balanced set that the planner learns from."""

    context: Annotated[int, Field(ge=1, le=3)] = 2  # K interests in the prompt
    per_label: Positive = 40  # samples (context and next cluster) kept of one label cluster, the most frequent first
    held_out_pairs: Share = 0.1  # share of the contexts withheld from training, stratified by frequency
    # whose transitions the balanced set is made of; all is for a refit that nothing is measured on
    learn_from: Literal["train", "all"] = "train"


class FinetuneConfig(Settings):
    """Supervised fine-tuning of the planner: the interests' tokens, fitted to the states of contexts."""

    # for reading contexts, frequent ones first; what is left out is answered by what was read. 0: what `init` has read
    minutes: Annotated[float, Field(ge=0)] = 5.0
    contexts_at_most: Positive = 20_000  # that are read, and whose states are kept beside the planner
    teacher_penalty: Annotated[float, Field(ge=0)] = 6.0  # of the choice model whose distributions are taught
    teacher_epochs: Positive = 30
    evaluation_choices: Positive = 4000  # of validation users, by which penalty and prior of the fit are chosen
    choose_by: Literal["novel_recall@1", "novel_recall@10", "mrr"] = "mrr"


class PlannerConfig(Settings):
    """The language policy."""

    model: str | None = None  # a Hugging Face folder, or its URL; None: the packaged SmolLM2-135M-Instruct
    model_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None  # of the SHA256SUMS at the URL
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # of matrix products; auto: bfloat16 where it is fast
    finetune: FinetuneConfig = FinetuneConfig()
    match_rate_contexts: Positive = 64  # free answers behind the match rate

    @model_validator(mode="after")
    def _is_verified(self) -> PlannerConfig:
        if self.model and "://" in self.model and self.model_sha256 is None:
            raise ValueError("planner.model at a URL needs `model_sha256`, of the SHA256SUMS beside the model")
        return self


class TableConfig(Settings):
    """The transition table: log-probabilities of all clusters after every ordered context."""

    shards: Positive = 4
    contexts_at_most: Positive | None = None  # a partial table, frequent contexts first; None: every ordered context
    # for reading contexts that fine-tuning did not; what is left then is answered by what was read. None: all are read
    minutes: Annotated[float, Field(ge=0)] | None = 0.0
    recent: Annotated[float, Field(gt=0, le=1)] | None = None  # share of the transitions, the latest, of a refresh
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # of matrix products; auto: bfloat16 where it is fast
    engine: str | None = None  # URL of an OpenAI-compatible engine that serves the planner; None: it answers in process
    engine_model: str = "planner"  # the name under which it serves it
    second_build: Annotated[int, Field(ge=0)] = 32  # contexts of a shard that are read again


class RankerConfig(Settings):
    """The item policy: a transformer over the item sequence, and counts of what was consumed together."""

    dim: Positive = 64
    blocks: Positive = 2
    heads: Positive = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of id embeddings, where items have text
    max_length: Positive = 200
    epochs: Positive = 30
    average_epochs: Annotated[float, Field(ge=0)] = 1.0  # that the kept model averages about; 0: the last step
    patience: Positive = 6  # epochs without a better validation NDCG@10
    batch_tokens: Positive = 4096
    negatives: Annotated[int, Field(ge=0)] | None = None  # shared by a batch; 0: all items; None: by catalogue size
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    use_text: bool = True
    use_memory: bool = True
    refit: bool = True  # once the epoch is chosen, train again on everything, the held-out items included


class Range(Settings):
    """Values from low to high."""

    low: float
    high: float
    log: bool = False  # drawn evenly over the logarithm

    @model_validator(mode="after")
    def _order(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low} and high {self.high}: expected low < high, and low > 0 on a log scale")
        return self


class TuningConfig(Settings):
    """Optuna's search over the ranker."""

    trials: Annotated[int, Field(ge=0)] = 4  # 0: train with the configuration as it is
    epochs: Positive = 12  # of a trial
    workers: Positive = 1  # processes on this machine; more machines may work on the same storage
    storage: str | None = None  # an RDB URL in a cluster; None: a journal file beside the run
    study: str = "ranker"  # its name in the storage
    # By setting of the ranker: a range, or a list of choices.
    space: dict[str, Range | list[float | int | str]] = {
        "learning_rate": Range(low=1e-3, high=4e-3, log=True),
        "dropout": Range(low=0.1, high=0.5),
        "dim": [64, 96],
    }


class PolicyConfig(Settings):
    """Request-time decisions."""

    recent_clusters: Positive = 10  # interests to sample from
    recency_half_life: Annotated[float, Field(gt=0)] = 4.0  # in positions among the recent interests
    exploration: Share = 0.02  # share of a slot's choice that is uniform over the clusters which it may show
    temperature: Annotated[float, Field(ge=0.01)] = 0.05  # of the draw of novel slots, in nats of joint utility
    shortlist: Annotated[int, Field(ge=1, le=1000)] = 64  # best items of new interests that novel slots are drawn from
    clusters_per_slate: Positive = 12  # interests behind a slate: one a novel slot, then the strongest familiar ones
    novel_share: Share = 0.3  # of the slate, before the user's appetite is known
    novel_share_bounds: tuple[Share, Share] = (0.1, 0.5)  # how far the appetite may move it
    appetite_window: Positive = 50  # latest positive events that the appetite is read from
    appetite_prior: Annotated[float, Field(gt=0)] = 20.0  # events that `novel_share` counts for beside them
    k: Positive = 10


class BatchConfig(Settings):
    """Slates for everybody."""

    k: Positive | None = None  # slots in a slate; None: the policy's
    novel: Annotated[int, Field(ge=0)] | Share | None = None  # of them, as a number or a share; None: by appetite
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # each user's random choices come from it and the user's id
    users_at_once: Positive = 512  # decided, asked and ranked together
    planner: bool = True  # asked where the table has no answer; without it the parents' answers stand in
    shard: Annotated[int, Field(ge=0)] = 0  # this one ...
    shards: Positive = 1  # ... of so many, which share the users out

    @model_validator(mode="after")
    def _shard_exists(self) -> BatchConfig:
        if self.shard >= self.shards:
            raise ValueError(f"shard: expected less than shards ({self.shards})")
        return self


class EvaluationConfig(Settings):
    """Protocols and gates."""

    bootstrap: Positive = 1000  # resamples of users behind every interval
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    contexts_at_most: Positive = 4000  # different contexts of test users that the planner is asked about
    validation_contexts: Positive = 400  # and of validation users, to choose how many clusters fill a slate
    users_at_most: Positive = 5000  # users behind any figure; where there are more, a seeded choice
    experiment_users: Positive = 2000  # of the small experiment, likewise
    liked_items: Positive = 8  # liked items of a test user behind the curve over the novelty quota
    sequence_epochs: Annotated[int, Field(ge=0)] = 16  # of the baseline that is a sequence model over clusters; 0: none
    examples: Annotated[int, Field(ge=0)] = 6  # slates and transitions shown in the report
    min_match_rate: Share = 0.9
    min_recall_over_chance: Annotated[float, Field(ge=0)] = 3.0  # NovelRecall@1 / chance, by the interval's lower bound


class RefitConfig(Settings):
    """The fit on all data, which is published; nothing is measured on it, its parameters are those that were."""

    # for reading contexts that the measured planner has not; 0: the rows alone are fitted anew, to everybody's choices
    planner_minutes: Annotated[float, Field(ge=0)] = 0.0
    table_contexts_at_most: Positive | None = None  # of the published table, frequent ones first; None: all


class RefreshConfig(Settings):
    """The table anew, its rows fitted to recent choices: what is recent, and what must hold."""

    judged_days: Annotated[float, Field(gt=0)] = 2.0  # the latest events, which both tables are judged on
    recent_days: Annotated[float, Field(gt=0)] = 14.0  # the latest transitions, which the rows are fitted to
    min_recall_ratio: Annotated[float, Field(ge=0)] = 1.0  # NovelRecall@10 of the new table over the old one's
    min_successor_jaccard: Share = 0.02  # a table that shares nothing with the one before was not refreshed but broken
    max_head_share: Share = 0.8  # of the best answers, that the most answered tenth of the clusters may take


class SparkConfig(Settings):
    """Spark, where the table steps run on it."""

    master: str = "local[*]"  # of Spark: this machine's cores, spark://host:7077, k8s://https://host:443
    folder: str | None = None  # that steps and executors share; None: a temporary one, for a master on this machine
    properties: dict[str, str] = {}  # more of Spark's own settings, such as spark.executor.memory

    @property
    def is_local(self) -> bool:
        """Whether Spark runs in the step's own process."""
        return self.master.startswith("local") and not self.master.startswith("local-cluster")

    @model_validator(mode="after")
    def _shares_a_folder(self) -> SparkConfig:
        if not self.is_local and self.folder is None:
            raise ValueError(f"master {self.master!r} needs `folder`, which the steps and its executors share")
        return self


class TrainingConfig(Settings):
    """The whole training pipeline."""

    seed: int = 7
    threads: Positive = 2
    engine: Literal["duckdb", "spark"] = "duckdb"  # of the table steps; spark: pyspark (newfound[spark]) and Java 17
    spark: SparkConfig = SparkConfig()
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    features: FeaturesConfig = FeaturesConfig()
    clusters: ClustersConfig = ClustersConfig()
    transitions: TransitionsConfig = TransitionsConfig()
    planner: PlannerConfig = PlannerConfig()
    table: TableConfig = TableConfig()
    ranker: RankerConfig = RankerConfig()
    tuning: TuningConfig = TuningConfig()
    policy: PolicyConfig = PolicyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    refit: RefitConfig = RefitConfig()
    refresh: RefreshConfig = RefreshConfig()


def load_config(path: str | Path, overrides: dict[str, object] | None = None) -> TrainingConfig:
    """Reads and checks a YAML configuration.

    Args:
        path: the YAML file.
        overrides: dotted keys with values that replace the file's, such as ``{"data.loader": "files"}``.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or a key is unknown or its value does not fit.
    """
    raw = read_yaml(path)
    for dotted, value in (overrides or {}).items():
        *parents, leaf = dotted.split(".")
        target = raw
        for name in parents:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{path}: key {name!r} holds no mapping; {dotted!r} cannot be set")
        target[leaf] = value
    return parse_config(raw, str(path))


def parse_config(raw: object, source: str) -> TrainingConfig:
    """Checks a mapping of the training's settings; `source` names where it came from in errors.

    Raises:
        ConfigError: a key is unknown or its value does not fit.
    """
    return checked(TrainingConfig, raw, source)
