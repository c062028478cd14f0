"""The ranker under the protocol of the published tables: `make bench-ranker-quality INTERACTIONS=... [ITEMS=...]`.

Leave one out: each user's last item is the test, the one before it validation, and training sees neither. Every item
is ranked, items that the user has had are filtered, no user is dropped. Epoch and co-occurrence are chosen on
validation; the test is looked at once a seed. INTERACTIONS is a text file of sequences, a MovieLens or MovieTweetings
folder, or Parquet or CSV of one's own; without it MovieLens-100K is taken. Where items have text, items that are held
out of training altogether are recommended as well.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from torch import Tensor

from newfound.config import ClustersConfig, DataConfig, RankerConfig, SplitConfig
from newfound.datasets import Dataset, load_interactions
from newfound.features.histories import Histories
from newfound.measures import hit_rate, ndcg, ranks_of
from newfound.ranker.build import learn
from newfound.ranker.cooccurrence import CoOccurrence
from newfound.ranker.data import PAD, Ints, Sequences, read_sequence_lines
from newfound.ranker.validation import held_out_scores, held_out_users, rank_held_out
from newfound.schema import ITEM, USER
from newfound.types import Floats
from tests.benchmarks.record import machine, write_record

COLD_SHARE, COLD_EVENTS, COLD_PAST = 0.1, 5000, 5


class Data(NamedTuple):
    """Sequences of item positions, oldest first, and text vectors where items have text."""

    name: str
    items: int
    sequences: Sequences
    text: Tensor | None


def read(interactions: str | None, items: str | None, least: int) -> Data:
    """Reads any of the accepted forms; all but the text form are cut down to users and items with `least` events.

    Ratings do not matter: whatever was consumed counts.
    """
    path = Path(interactions) if interactions else None
    if path is not None and path.is_dir() and len(texts := sorted(path.glob("*.txt"))) == 1:
        path = texts[0]
    if path is not None and path.suffix == ".txt":
        _, names, sequences = read_sequence_lines(path)
        return Data(path.stem, len(names), sequences, None)
    bounds = {"min_user_events": least, "min_item_events": least}
    if path is None:
        config = DataConfig(**bounds)
    elif path.suffix in (".csv", ".parquet") and path.name != "ratings.csv":
        config = DataConfig(loader="files", interactions=str(path), items=items, rating_scale=(0, 10), **bounds)
    else:
        folder = str(path if path.is_dir() else path.parent)
        config = DataConfig(loader="movielens", folder=folder, rating_scale=(0, 10), **bounds)
    with tempfile.TemporaryDirectory() as work:
        load_interactions(config, SplitConfig(), 0, Path(work) / "dataset")
        dataset = Dataset(Path(work) / "dataset")
        events, catalogue = dataset.frame("interactions"), dataset.frame("items")
    known = catalogue[catalogue[ITEM].isin(set(events[ITEM]))].reset_index(drop=True)
    position = {item: at for at, item in enumerate(known[ITEM])}
    sequences = Sequences.of(group.map(position) for _, group in events.groupby(USER, sort=True)[ITEM])
    return Data(path.stem if path else "movielens-100k", len(known), sequences, _text(known, sequences))


def _text(items: object, sequences: Sequences) -> Tensor | None:
    """Content vectors as the clusters make them; co-consumption has no part in them."""
    from newfound.clusters.embed import embed_items, has_content

    if not has_content(items).any():
        return None
    past = sequences.drop_last(3)[0].drop_last(3)[0]
    names = items[ITEM].to_numpy()
    nothing = np.zeros(len(past.items))
    histories = Histories(
        users=[str(user) for user in range(len(past))],
        offsets=past.offsets,
        item_ids=names[past.items],
        times=nothing.astype(np.int64),
        engagements=nothing.astype(np.float32),
        positives=nothing.astype(bool),
    )
    found = embed_items(items, histories, ClustersConfig(), 0)
    content = torch.from_numpy(np.ascontiguousarray(found.items[:, : found.record["content_dim"]]))
    return torch.nn.functional.normalize(content, dim=1)


def figures(ranks: Ints, users: int) -> dict[str, float]:
    """NDCG@10 and HR@10 over all users; one whose target was filtered with the past is a miss."""
    share = len(ranks) / users
    return {"ndcg@10": ndcg(ranks, 10) * share, "hr@10": hit_rate(ranks, 10) * share}


def one_seed(data: Data, config: RankerConfig, seed: int, refit: bool) -> tuple[dict[str, float], CoOccurrence]:
    """Trains and chooses on all but the test items, then ranks those; also gives the co-occurrence that was chosen."""
    started = time.perf_counter()
    past, test = data.sequences.drop_last(least=3)
    users = int((test != PAD).sum())
    learned = learn(past, data.items, config.model_copy(update={"refit": False}), seed, text=data.text)
    seconds = time.perf_counter() - started
    found = {f"test.{name}": value for name, value in _test(learned, past, test, users, True).items()}
    found |= {f"test.transformer.{name}": value for name, value in _test(learned, past, test, users, False).items()}
    found |= {name: float(value) for name, value in learned.measures.items() if not isinstance(value, str)}
    if refit:
        again = learn(past, data.items, config.model_copy(update={"refit": True}), seed, text=data.text)
        found |= {f"test.refit.{name}": value for name, value in _test(again, past, test, users, True).items()}
    return found | {"users": users, "seconds": seconds}, learned.cooccurrence


def _test(learned: object, past: Sequences, test: Ints, users: int, with_counts: bool) -> dict[str, float]:
    counts = learned.cooccurrence if with_counts else None
    return figures(rank_held_out(learned.model, past, test, cooccurrence=counts), users)


def rivals(data: Data, cooccurrence: CoOccurrence) -> dict[str, float]:
    """What needs no training, of the very data that the model trains on.

    Most popular; Markov (counts of what came right after a user's last item, then popularity); and the co-occurrence
    alone, with the decay that was chosen for the whole (then popularity).
    """
    past, test = data.sequences.drop_last(least=3)
    train, _ = past.drop_last(least=3)
    popular = np.bincount(train.items, minlength=data.items) / len(train.items)
    owner = np.repeat(np.arange(len(train)), train.lengths)
    same = owner[1:] == owner[:-1]
    pairs = (np.ones(int(same.sum())), (train.items[:-1][same], train.items[1:][same]))
    follows = coo_array(pairs, shape=(data.items, data.items)).tocsr()

    def markov(history: Ints) -> Floats:
        scores = popular.copy()
        row = slice(follows.indptr[history[-1]], follows.indptr[history[-1] + 1])
        scores[follows.indices[row]] += follows.data[row]
        return scores

    def counts(history: Ints) -> Floats:
        scores = 1e-3 * popular
        items, strengths = cooccurrence.strength(history)
        scores[items] += strengths
        return scores

    found: dict[str, float] = {}
    users = held_out_users(past, test)
    for name, score in (("popular", lambda history: popular.copy()), ("markov", markov), ("counts_alone", counts)):
        ranks = np.empty(len(users), dtype=np.int64)
        for at, user in enumerate(users):
            scores = score(past.row(user))
            scores[past.row(user)] = -np.inf
            ranks[at] = ranks_of(scores[None], test[user : user + 1])[0]
        of_all = figures(ranks, int((test != PAD).sum()))
        found |= {f"{name}.test.{measure}": value for measure, value in of_all.items()}
    return found


def cold(data: Data, config: RankerConfig, seed: int) -> dict[str, float]:
    """Recall@10 on events of items that training never saw, beside text similarity alone.

    A tenth of the items is taken out of every sequence. Each of their events with at least five others before it asks
    for the item: among all items not had, and among the unseen items alone.
    """
    random = np.random.default_rng(seed)
    unseen = np.zeros(data.items, dtype=bool)
    unseen[random.choice(data.items, max(1, int(COLD_SHARE * data.items)), replace=False)] = True
    rows = [data.sequences.row(user) for user in range(len(data.sequences))]
    model = learn(
        Sequences.of(row[~unseen[row]] for row in rows),
        data.items,
        config.model_copy(update={"refit": False, "use_memory": False}),
        seed,
        text=data.text,
    ).model
    asked = [(row[:at][~unseen[row[:at]]], row[at]) for row in rows for at in np.flatnonzero(unseen[row])]
    asked = [(before, item) for before, item in asked if len(before) >= COLD_PAST]
    chosen = np.sort(random.choice(len(asked), min(COLD_EVENTS, len(asked)), replace=False))
    past = Sequences.of(asked[event][0] for event in chosen)
    targets = np.array([asked[event][1] for event in chosen], dtype=np.int64)
    assert data.text is not None
    text = data.text.numpy()
    ranks: dict[str, list[Ints]] = {name: [] for name in ("all", "unseen", "text.all", "text.unseen")}
    for some, scores in held_out_scores(model, past, np.arange(len(past))):
        similar = np.stack([text @ text[past.row(event)[-10:]].mean(axis=0) for event in some])
        for row, event in enumerate(some):
            similar[row, past.row(event)] = -np.inf
        for name, values in (("", scores), ("text.", similar)):
            ranks[f"{name}all"].append(ranks_of(values, targets[some]))
            ranks[f"{name}unseen"].append(ranks_of(np.where(unseen, values, -np.inf), targets[some]))
    recalls = {f"cold.recall@10.{name}": hit_rate(np.concatenate(parts), 10) for name, parts in ranks.items()}
    return recalls | {"cold.items": int(unseen.sum()), "cold.events": len(targets), "cold.chance": 10 / unseen.sum()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions")
    parser.add_argument("--items")
    parser.add_argument("--least", type=int, default=5, help="events that a user and an item need (not for text files)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--refit", action="store_true", help="also train on the validation items before the test")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="ablation: other ranker settings")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/ranker-quality.json"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    config = RankerConfig.model_validate(dict(pair.split("=", 1) for pair in options.set))
    data = read(options.interactions, options.items, options.least)
    if not config.use_text:
        data = data._replace(text=None)
    lengths = data.sequences.lengths
    events, text = int(lengths.sum()), data.text is not None
    print(f"{data.name}: {len(lengths)} users, {data.items} items, {events} events, text: {text}", flush=True)
    head = {**machine(), "data": data.name, "users": len(lengths), "items": data.items, "events": events}
    head |= {"threads": options.threads, **{f"config.{name}": value for name, value in config.model_dump().items()}}
    runs: list[dict[str, float]] = []
    for seed in options.seeds:
        found, cooccurrence = one_seed(data, config, seed, options.refit)
        runs.append(found)
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True)
        record: dict[str, object] = {**head, "seeds": options.seeds[: len(runs)]}
        for name in found:
            values = np.array([run[name] for run in runs])
            record |= {name: float(values.mean()), f"{name}.spread": float(values.max() - values.min())}
        write_record(options.out, record)  # a run that is stopped has its finished seeds
    record |= rivals(data, cooccurrence)
    if data.text is not None:
        record |= cold(data, config, options.seeds[0])
    print(f"{'':30} {'mean':>8} {'spread':>8}")
    for name in sorted(name for name in record if "@10" in name and not name.endswith(".spread")):
        spread = record.get(f"{name}.spread")
        print(f"{name:30} {record[name]:>8.4f} " + (f"{spread:>8.4f}" if spread is not None else ""))
    write_record(options.out, record)


if __name__ == "__main__":
    main()
