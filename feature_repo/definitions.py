"""Feast's definitions: a user's history, and the interests that the user has had.

Feast expands `$VARIABLES` in its YAML only, so the place of the source files comes from the environment here:
`NEWFOUND_FEATURES` is the folder (or URL) that a run materialised, and must be set wherever this folder is applied.
Cluster ids appear in one place alone, stamped with the digest of the clusters that they belong to: a refit makes no
history wrong.
"""

import os

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, ValueType
from feast.types import Array, Bool, Float32, Int64, String

from newfound import schema

STORE = os.environ["NEWFOUND_FEATURES"].rstrip("/")

project = Project(name="newfound", description="Interests that people have had, and will be glad to have found")

user = Entity(name="user", join_keys=[schema.USER], value_type=ValueType.STRING)

history_source = FileSource(
    name=f"{schema.USER_HISTORY}_source",
    path=f"{STORE}/{schema.USER_HISTORY}.parquet",
    timestamp_field=schema.EVENT_TIME,
)

user_history = FeatureView(
    name=schema.USER_HISTORY,
    description="The last events of a user, oldest first; event_timestamp is the newest one's",
    entities=[user],
    schema=[
        Field(name=schema.USER, dtype=String),
        Field(name=schema.ITEM_IDS, dtype=Array(String)),
        Field(name=schema.TIMES, dtype=Array(Int64), description="UTC milliseconds since the epoch"),
        Field(name=schema.ENGAGEMENTS, dtype=Array(Float32)),
        Field(name=schema.POSITIVES, dtype=Array(Bool)),
    ],
    source=history_source,
)

interests_source = FileSource(
    name=f"{schema.USER_INTERESTS}_source",
    path=f"{STORE}/{schema.USER_INTERESTS}.parquet",
    timestamp_field=schema.EVENT_TIME,
)

user_interests = FeatureView(
    name=schema.USER_INTERESTS,
    description="Every leaf cluster that a user ever consumed from, over the whole look-back",
    entities=[user],
    schema=[
        Field(name=schema.USER, dtype=String),
        Field(name=schema.SEEN_LEAVES, dtype=Array(String)),
        Field(name=schema.CLUSTERS_DIGEST, dtype=String, description="the clusters that seen_leaves belong to"),
    ],
    source=interests_source,
)

explorer = FeatureService(
    name="explorer",
    description="All that a request needs to know about a user, in one read",
    features=[user_history, user_interests],
)
