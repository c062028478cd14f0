"""Which moments are asked about, with which history, context and slice: on journeys that can be checked by eye."""

import numpy as np
import pytest

from newfound.config import PolicyConfig
from newfound.evaluation import moments as protocols
from newfound.evaluation.moments import Events, Journeys

ORDER = list("abcdef")


def journeys(*walks: tuple[str, int], order: list[str] = ORDER) -> Journeys:
    """Each walk is clusters in order (upper case: disliked; a dot: an item in no cluster) and how many are past.

    Item ids are the user's number, the cluster and the position, so that every item is new.
    """
    items, clusters, positives, offsets = [], [], [], [0]
    for user, (walk, _) in enumerate(walks):
        for at, letter in enumerate(walk):
            items.append(f"{user}{letter}{at}")
            clusters.append(-1 if letter == "." else order.index(letter.lower()))
            positives.append(letter.islower() or letter == ".")
        offsets.append(len(items))
    return Journeys(
        users=[f"u{user}" for user in range(len(walks))],
        offsets=np.array(offsets),
        past=np.array([past for _, past in walks]),
        items=np.array(items, dtype=object),
        clusters=np.array(clusters),
        positives=np.array(positives),
        engagements=np.where(positives, 1.0, 0.0),
        order=order,
    )


class TestNovelEvents:
    def test_first_time_positive_clusters_after_the_cut(self):
        #        past | future: c is new; a is not; D is new but disliked; d is then no longer new; e is new
        events = protocols.novel_events(journeys(("abcaDde", 2)), 2)
        assert [ORDER[label] for label in events.labels] == ["c", "e"]
        assert events.contexts == [("a", "b"), ("a", "d")]
        assert events.items == ["0c2", "0e6"]

    def test_history_is_what_lies_before_the_very_event_future_included(self):
        events = protocols.novel_events(journeys(("abcaDde", 2)), 2)
        assert events.histories == [["0a0", "0b1"], ["0a0", "0b1", "0c2", "0a3", "0D4", "0d5"]]
        assert [{ORDER[c] for c in np.flatnonzero(row)} for row in events.seen] == [{"a", "b"}, {"a", "b", "c", "d"}]

    def test_dislikes_count_as_seen_but_are_no_interest(self):
        events = protocols.novel_events(journeys(("aBcd", 2)), 2)
        assert events.contexts == [("a", "c")]  # c itself came with one interest only, so no context could be made
        assert events.seen[0].tolist() == [True, True, True, False, False, False]

    def test_context_is_of_unique_clusters_the_most_recent_last(self):
        events = protocols.novel_events(journeys(("abab.bac", 7)), 2)
        assert events.contexts == [("b", "a")]

    def test_items_in_no_cluster_are_passed_over(self):
        events = protocols.novel_events(journeys(("ab.c.", 2)), 2)
        assert [ORDER[label] for label in events.labels] == ["c"]
        assert events.histories == [["0a0", "0b1", "0.2"]]

    def test_users_do_not_mix(self):
        events = protocols.novel_events(journeys(("abc", 2), ("bad", 2)), 2)
        assert events.users.tolist() == ["u0", "u1"]
        assert events.contexts == [("a", "b"), ("b", "a")]
        assert events.past_sizes.tolist() == [2, 2]


class TestItemProtocols:
    def test_next_item_is_the_first_new_one_after_the_cut(self):
        found = journeys(("abcd", 2), ("ab", 2), ("cd", 0))
        found.items[2] = found.items[0]  # a repeat is passed over
        events = protocols.next_item_events(found)
        assert events.items == ["0d3"]  # no future in the second, no past in the third

    def test_next_positive_items_novel_or_not(self):
        events = protocols.next_positive_events(journeys(("abaCadb", 2)), 2, per_user=3)
        assert events.items == ["0a2", "0a4", "0d5"]
        assert protocols.next_positive_events(journeys(("abaCadb", 2)), 2, per_user=1).items == ["0a2"]


class TestContexts:
    def test_sampled_as_serving_samples(self):
        events = protocols.novel_events(journeys(*[("abcdef", 5)] * 400), 2)
        config = PolicyConfig(recent_clusters=3, recency_half_life=1.0)
        drawn = protocols.sampled_contexts(events, config, 2, seed=1)
        # weights 1/4, 1/2, 1 of c, d, e: the pair (d, e) has the Plackett-Luce probability below
        total = 1.75
        expected = 0.5 / total * 1 / (total - 0.5) + 1 / total * 0.5 / (total - 1)
        share = np.mean([context == ("d", "e") for context in drawn])
        assert set(drawn) == {("c", "d"), ("c", "e"), ("d", "e")}
        assert share == pytest.approx(expected, abs=0.07)
        assert drawn == protocols.sampled_contexts(events, config, 2, seed=1)

    def test_withheld_contexts_only_where_serving_could_draw_one(self):
        events = protocols.novel_events(journeys(("abcd", 3), ("efad", 3)), 2)
        possible, contexts = protocols.withheld_contexts(events, {("a", "b"), ("d", "e")}, PolicyConfig(), 2, seed=0)
        assert possible.tolist() == [True, False]
        assert contexts[0] == ("a", "b")

    def test_at_most_keeps_whole_users(self):
        walks = [("abcdef", 2)] * 3 + [("fedcba", 2)] * 3
        events = protocols.novel_events(journeys(*walks), 2)
        fewer = protocols.at_most(events, 4, seed=0)
        assert len(set(fewer.contexts)) <= 4 and 0 < len(fewer) < len(events)
        for user in set(fewer.users):
            assert (fewer.users == user).sum() == (events.users == user).sum()
        assert len(protocols.at_most(events, 100, seed=0)) == len(events)


def test_light_users_are_those_up_to_the_median_user():
    found = journeys(("abc", 2), ("abab" + "c", 4), ("ababab" + "cd", 6))
    events = protocols.novel_events(found, 2)
    assert protocols.light_users(events).tolist() == [True, True, False, False]


def test_nothing_to_ask_is_no_error():
    events = protocols.novel_events(journeys(("ab", 2)), 2)
    assert len(events) == 0 and events.seen.shape == (0, 6) and events.histories == []
    assert len(protocols.at_most(events, 5, 0)) == 0 and len(protocols.light_users(events)) == 0


def test_journeys_read_from_a_data_set_agree_with_its_tables(fitted):
    import pandas as pd

    from newfound.clusters import Clusters

    clusters = Clusters.load(fitted["clusters"])
    found = protocols.read_journeys(fitted["dataset"], clusters, ["test"])
    users = pd.read_parquet(fitted["dataset"] / "users.parquet").set_index("user_id")
    events = pd.read_parquet(fitted["dataset"] / "interactions.parquet")
    assert found.users == sorted(users.index[users["group"] == "test"])
    for row in (0, len(found.users) - 1):
        own = events[events["user_id"] == found.users[row]]
        part = slice(found.offsets[row], found.offsets[row + 1])
        assert found.items[part].tolist() == own["item_id"].tolist()
        assert found.past[row] == (own["timestamp"] < users.loc[found.users[row], "cut"]).sum()
        assert [clusters.interface[c] for c in found.clusters[part]] == [clusters.cluster_of[i] for i in own["item_id"]]
    events_found: Events = protocols.novel_events(found, 2)
    assert len(events_found) and not events_found.seen[np.arange(len(events_found)), events_found.labels].any()


def test_moments_are_mined_like_the_transitions_are(fitted):
    """The protocol over the past alone must find the very transitions that mining finds."""
    import pyarrow.parquet as pq

    from newfound.clusters import Clusters

    clusters = Clusters.load(fitted["clusters"])
    found = protocols.read_journeys(fitted["dataset"], clusters, ["train"])
    past = np.concatenate([np.arange(a, a + n) for a, n in zip(found.offsets, found.past, strict=False)])
    sizes = np.bincount(found.row[past], minlength=len(found.users))
    only_past = Journeys(
        users=found.users,
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        past=np.zeros(len(found.users), dtype=int),
        items=found.items[past],
        clusters=found.clusters[past],
        positives=found.positives[past],
        engagements=found.engagements[past],
        order=found.order,
    )
    events = protocols.novel_events(only_past, 2)
    ours = {
        (user, context, found.order[label])
        for user, context, label in zip(events.users.tolist(), events.contexts, events.labels, strict=True)
    }
    mined = pq.read_table(fitted["transitions"] / "transitions.parquet").to_pylist()
    theirs = {(r["user_id"], tuple(r["context"]), r["next"]) for r in mined if r["split"] == "train" and r["positive"]}
    assert ours == theirs


def test_some_users_are_a_seeded_choice_of_all(fitted):
    from newfound.clusters import Clusters

    clusters = Clusters.load(fitted["clusters"])
    every = protocols.read_journeys(fitted["dataset"], clusters, ["train"])
    some, same, other = (protocols.read_journeys(fitted["dataset"], clusters, ["train"], 5, seed) for seed in (1, 1, 2))
    assert len(some.users) == 5 and set(some.users) < set(every.users)
    assert some.users == same.users != other.users
