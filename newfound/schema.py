"""Column names and table contracts, once; everything else refers to these.

Times are UTC. Files are Parquet unless said otherwise. Ids are strings everywhere, also when they look like numbers.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

USER: Final = "user_id"
ITEM: Final = "item_id"
TIME: Final = "timestamp"
ENGAGEMENT: Final = "engagement"
POSITIVE: Final = "positive"
POSITION: Final = "position"
TITLE: Final = "title"
TEXT: Final = "text"
CATEGORIES: Final = "categories"
GROUP: Final = "group"
CUT: Final = "cut"

TIMESTAMP = pa.timestamp("us", tz="UTC")

INTERACTIONS = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(TIME, TIMESTAMP, nullable=False),
        pa.field(ENGAGEMENT, pa.float32(), nullable=False),
        pa.field(POSITIVE, pa.bool_(), nullable=False),
        # 0, 1, 2, ... within the user, by time and then by the order of the source: makes ties deterministic.
        pa.field(POSITION, pa.int32(), nullable=False),
    ]
)
"""`interactions.parquet`: sorted by user_id, position. Engagement lies in [0, 1]."""

ITEMS = pa.schema(
    [
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(TITLE, pa.string(), nullable=False),  # the item id where the source has none
        pa.field(TEXT, pa.string()),
        pa.field(CATEGORIES, pa.list_(pa.string()), nullable=False),  # empty where the source has none
    ]
)
"""`items.parquet`: every item that an interaction names, and possibly more; sorted by item_id."""

GROUPS: Final = ("train", "validation", "test")

USERS = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(GROUP, pa.string(), nullable=False),  # one of GROUPS: disjoint users for the planner
        pa.field(CUT, TIMESTAMP, nullable=False),  # events with timestamp < cut are the past, the rest the future
    ]
)
"""`users.parquet`: the split. With a global cut, every user's cut is the same."""

# Views of the feature store, and the files that they are fed from.
USER_HISTORY: Final = "user_history"
USER_INTERESTS: Final = "user_interests"
EVENT_TIME: Final = "event_timestamp"
ITEM_IDS: Final = "item_ids"
TIMES: Final = "times"
ENGAGEMENTS: Final = "engagements"
POSITIVES: Final = "positives"

HISTORIES = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(EVENT_TIME, TIMESTAMP, nullable=False),  # time of the newest event in the row
        pa.field(ITEM_IDS, pa.list_(pa.string()), nullable=False),  # oldest first; the last L events
        pa.field(TIMES, pa.list_(pa.int64()), nullable=False),  # UTC milliseconds since the epoch
        pa.field(ENGAGEMENTS, pa.list_(pa.float32()), nullable=False),
        pa.field(POSITIVES, pa.list_(pa.bool_()), nullable=False),
    ]
)
"""`histories.parquet`: one row a user, the past as of the cut; users without a past are absent."""

SEEN_LEAVES: Final = "seen_leaves"
CLUSTERS_DIGEST: Final = "clusters_digest"

INTERESTS = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(EVENT_TIME, TIMESTAMP, nullable=False),  # time of the user's newest event
        pa.field(SEEN_LEAVES, pa.list_(pa.string()), nullable=False),  # sorted; empty where no item has a cluster
        pa.field(CLUSTERS_DIGEST, pa.string(), nullable=False),  # the clusters that the leaves belong to
    ]
)
"""Source of Feast's `user_interests` view: one row a user, over the whole look-back, sorted by user_id."""

NODE: Final = "node"
PARENT: Final = "parent"
LEVEL: Final = "level"
DESCRIPTION: Final = "description"
SIZE: Final = "size"
TRAFFIC: Final = "traffic"
LEAF: Final = "leaf"
PATH: Final = "path"

TREE = pa.schema(
    [
        pa.field(NODE, pa.string(), nullable=False),  # opaque and stable across refits
        pa.field(PARENT, pa.string()),  # null at level 1
        pa.field(LEVEL, pa.int8(), nullable=False),  # 1 is the coarsest
        pa.field(DESCRIPTION, pa.string(), nullable=False),  # unique within its level
        pa.field(SIZE, pa.int32(), nullable=False),  # items below it
        pa.field(TRAFFIC, pa.float32(), nullable=False),  # its share of the level's positive interactions
    ]
)
"""`clusters/tree.parquet`, in depth-first order, so that every node's items are one contiguous run."""

ITEM_PATHS = pa.schema(
    [
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(PATH, pa.list_(pa.string()), nullable=False),  # nodes from level 1 down to the leaf
    ]
)
"""`clusters/items.parquet`, in the tree's depth-first order, then by item_id."""

X: Final = "x"
Y: Final = "y"

LAYOUT = pa.schema(
    [
        pa.field(NODE, pa.string(), nullable=False),
        pa.field(X, pa.float32(), nullable=False),  # both in [-1, 1]
        pa.field(Y, pa.float32(), nullable=False),
    ]
)
"""`clusters/layout.parquet`: the map of interests, a point a interface cluster, in tree order."""

POPULARITY: Final = "popularity"
TWINS: Final = "twins"

CATALOGUE = pa.schema(
    [
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(TITLE, pa.string(), nullable=False),
        pa.field(POPULARITY, pa.int64(), nullable=False),  # positive interactions
        pa.field(TWINS, pa.string()),  # the first item of its group of near-duplicates; null where it has none
    ]
)
"""`items.parquet` of a release: what serving needs to know about every clustered item; sorted by item_id."""

CONTEXT: Final = "context"
NEXT: Final = "next"
AT: Final = "at"
SPLIT: Final = "split"
HELD_OUT: Final = "held_out"

TRANSITIONS = pa.schema(
    [
        pa.field(CONTEXT, pa.list_(pa.string()), nullable=False),  # the last K unique positive clusters, oldest first
        pa.field(NEXT, pa.string(), nullable=False),  # a cluster never in the user's past before
        pa.field(USER, pa.string(), nullable=False),
        pa.field(AT, TIMESTAMP, nullable=False),
        pa.field(ENGAGEMENT, pa.float32(), nullable=False),  # signed, in [-1, 1]: 2 * engagement - 1
        pa.field(POSITIVE, pa.bool_(), nullable=False),  # as the data set says; not the sign of the engagement
        pa.field(SPLIT, pa.string(), nullable=False),  # the user's group
        pa.field(HELD_OUT, pa.bool_(), nullable=False),  # its (context) pair is withheld from training by design
    ]
)
"""`transitions.parquet`: mined from the past alone; sorted by user_id and by the order of events."""

WEIGHT: Final = "weight"

BALANCED = pa.schema(
    [
        pa.field(CONTEXT, pa.list_(pa.string()), nullable=False),
        pa.field(NEXT, pa.string(), nullable=False),
        pa.field(WEIGHT, pa.float32(), nullable=False),  # positive transitions of training users behind the sample
    ]
)
"""`balanced.parquet`: what the planner learns from; sorted by next, then the heaviest first."""

COUNT: Final = "count"
STRATUM: Final = "stratum"

WITHHELD = pa.schema(
    [
        pa.field(CONTEXT, pa.list_(pa.string()), nullable=False),
        # transitions of training users from it; 0 where they came from its other orders alone
        pa.field(COUNT, pa.int32(), nullable=False),
        # by transitions from its clusters in any order: 0 for one, 1 for two or three, 2 for four to seven, ...
        pa.field(STRATUM, pa.int8(), nullable=False),
    ]
)
"""`held_out.parquet`: contexts withheld from training by design, in every order of their clusters; sorted."""

CLUSTER: Final = "cluster"
SCORE: Final = "score"
SOURCE: Final = "source"

# --- Events: what was shown, and what came of it (the pydantic models are in newfound/events.py) ----------------------

EVENT: Final = "event_id"
RECOMMENDATION: Final = "recommendation_id"
USER_KEY: Final = "user_key"
RELEASE: Final = "release"
SLOT: Final = "slot"
KIND: Final = "kind"
PROPENSITY: Final = "propensity"
REASON: Final = "reason"
SHARE: Final = "share"

RECOMMENDED = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(POSITION, pa.int16(), nullable=False),  # 0 is the top of the slate
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(TITLE, pa.string(), nullable=False),
        pa.field(SCORE, pa.float32()),  # the ranker's; null where popularity stood in for it
        pa.field(SLOT, pa.string(), nullable=False),  # novel | familiar
        pa.field(CLUSTER, pa.string(), nullable=False),
        pa.field("interest", pa.string(), nullable=False),  # the cluster's description
        pa.field("because", pa.list_(pa.string()), nullable=False),  # descriptions of the interests that led here
        pa.field(PROPENSITY, pa.float64(), nullable=False),
        pa.field(REASON, pa.string(), nullable=False),
        pa.field(RELEASE, pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),  # of the user's random choices
    ]
)
"""Slates for everybody (`newfound.recommend.batch`): one row a slot, in the order of the users, from the top down."""

SLATES = pa.schema(
    [
        pa.field(RECOMMENDATION, pa.string(), nullable=False),
        pa.field(AT, TIMESTAMP, nullable=False),
        pa.field(USER_KEY, pa.string(), nullable=False),  # keyed hash; raw ids stay in the store
        pa.field(RELEASE, pa.string(), nullable=False),
        pa.field("history_length", pa.int32(), nullable=False),
        pa.field("history_at", TIMESTAMP),  # newest event in the history; null without one
        pa.field("successors", pa.int32(), nullable=False),  # answered by table and planner ...
        pa.field("leaked", pa.int32(), nullable=False),  # ... of which the user had consumed already
        pa.field("generated", pa.int32(), nullable=False),  # answered by the live planner ...
        pa.field("matched", pa.int32(), nullable=False),  # ... of which exactly a description
        pa.field("latency_ms", pa.float32(), nullable=False),
        pa.field("degraded", pa.bool_(), nullable=False),
    ]
)
"""Exported slates: one row a recommendation."""

SLOTS = pa.schema(
    [
        pa.field(RECOMMENDATION, pa.string(), nullable=False),
        pa.field(AT, TIMESTAMP, nullable=False),
        pa.field(USER_KEY, pa.string(), nullable=False),
        pa.field(RELEASE, pa.string(), nullable=False),
        pa.field(POSITION, pa.int16(), nullable=False),  # 0 is the top of the slate
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(CLUSTER, pa.string(), nullable=False),
        pa.field(SLOT, pa.string(), nullable=False),  # novel | familiar, as of the decision
        pa.field(PROPENSITY, pa.float64(), nullable=False),
        pa.field(REASON, pa.string(), nullable=False),
        pa.field("candidates", pa.map_(pa.string(), pa.float64()), nullable=False),  # probability by cluster
        pa.field("floor", pa.float64(), nullable=False),  # of each eligible cluster that candidates leave out
        pa.field("eligible", pa.int32(), nullable=False),  # clusters that the slot could have been given to
        pa.field("because", pa.list_(pa.string()), nullable=False),
        pa.field(SCORE, pa.float32()),  # the ranker's
        pa.field("client_seed", pa.bool_(), nullable=False),  # of the slate: its client chose the seed
    ]
)
"""Exported slots: one row a slot of a slate."""

FEEDBACK = pa.schema(
    [
        pa.field(EVENT, pa.string(), nullable=False),
        pa.field(AT, TIMESTAMP, nullable=False),
        pa.field(USER_KEY, pa.string(), nullable=False),
        pa.field(RECOMMENDATION, pa.string()),  # null: consumed on another path
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(KIND, pa.string(), nullable=False),  # shown | clicked | watched | liked | dismissed
        pa.field(SHARE, pa.float64()),  # watched share; null for the other kinds
    ]
)
"""Exported feedback: one row an event."""
