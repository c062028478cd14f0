"""From the pipeline's artifacts to a ranker: sequences in cluster order, training, co-occurrence, the artifact."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from newfound.clusters import Clusters
from newfound.compute.distributed import processes
from newfound.config import RankerConfig
from newfound.datasets import Dataset
from newfound.errors import DataError
from newfound.features.histories import Histories
from newfound.files import remove_folder
from newfound.measures import gains
from newfound.ranker.artifact import Ranker
from newfound.ranker.cooccurrence import CoOccurrence, count_cooccurrence
from newfound.ranker.data import Sequences
from newfound.ranker.model import SequenceModel
from newfound.ranker.train import CHECKPOINT, Fit, fit
from newfound.ranker.validation import figures, held_out_scores, held_out_users, rank_held_out
from newfound.types import Bools, Floats, Ints

log = logging.getLogger("newfound.ranker")

DECAYS: Final = (0.6, 0.75, 0.85, 0.95)
WEIGHTS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
RARITIES: Final = (0.1, 0.3, 0.5)
USERS_TO_TUNE_ON: Final = 3000


@dataclass
class Learned:
    """A model with its co-occurrence, how they were chosen, and how they do on the held-out items.

    Attributes:
        model: of the last fit: on everything if `refitted`, otherwise on all but the held-out items.
        cooccurrence: counted on the same sequences.
        fit: the fit that chose the epoch.
        measures: flat, of the choosing fit.
        refitted: whether the held-out items went into training afterwards.
    """

    model: SequenceModel
    cooccurrence: CoOccurrence
    fit: Fit
    measures: dict[str, float | int | str]
    refitted: bool


@dataclass(frozen=True)
class Chosen:
    """Settings that held-out items decide.

    Attributes:
        epoch: after which the fit ends.
        rarity, decay, weight: of the co-occurrence.
    """

    epoch: int
    rarity: float
    decay: float
    weight: float

    @classmethod
    def load(cls, ranker: Path) -> Chosen:
        """Settings that were chosen for a ranker.

        Raises:
            DataError: its training.json is missing or broken.
        """
        file = ranker / "training.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))["measures"]
            memory = (float(found[f"memory.{name}"]) for name in ("rarity", "decay", "weight"))
            return cls(int(found["epoch"]), *memory)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(str(file), "cannot be read", expected="what train_ranker wrote") from error

    def measures(self) -> dict[str, float | int | str]:
        """By the names of training.json."""
        memory = {f"memory.{name}": getattr(self, name) for name in ("weight", "decay", "rarity")}
        return {"epoch": self.epoch, **memory}


def learn(
    sequences: Sequences,
    items: int,
    config: RankerConfig,
    seed: int,
    *,
    text: Tensor | None = None,
    folder: Path | None = None,
    measured: Chosen | None = None,
) -> Learned:
    """Fits, chooses the epoch and the co-occurrence's weight on each sequence's last item, and refits if so configured.

    Args:
        sequences: items as 0 .. items - 1, oldest first.
        items: number of items.
        config: everything about model and training.
        seed: of everything random.
        text: float32 text vectors [items, text dim].
        folder: where checkpoints are kept, to go on from.
        measured: what was chosen on earlier data; then nothing is held out, and everything is learned from at once.
    """
    if measured is not None:
        return _learn_again(measured, sequences, items, config, seed, text, folder)
    chosen = fit(sequences, items, config, seed, text=text, folder=folder and folder / "choose")
    past, targets = sequences.drop_last(least=3)
    found = {"ndcg@10": chosen.ndcg, "hr@10": chosen.hit_rate}
    if not config.use_memory:
        cooccurrence = count_cooccurrence(past, items)
    else:
        counted = [count_cooccurrence(past, items, rarity) for rarity in RARITIES]
        cooccurrence = tune_cooccurrence(chosen.model, counted, past, targets)
        found = figures(rank_held_out(chosen.model, past, targets, cooccurrence=cooccurrence))
        log.info(
            "co-occurrence: rarity %g, decay %g, weight %g; NDCG@10 %.4f with it",
            *(cooccurrence.rarity, cooccurrence.decay, cooccurrence.weight, found["ndcg@10"]),
        )
    settings = Chosen(chosen.epoch, cooccurrence.rarity, cooccurrence.decay, cooccurrence.weight)
    measures: dict[str, float | int | str] = {
        **{f"validation.{name}": value for name, value in found.items()},
        "validation.ndcg@10_without_memory": chosen.ndcg,
        **settings.measures(),
        "parameters": sum(p.numel() for p in chosen.model.parameters()),
        "seconds": chosen.seconds,
    }
    if not config.refit:
        return Learned(chosen.model, cooccurrence, chosen, measures, refitted=False)
    again = _learn_again(settings, sequences, items, config, seed, text, folder)
    measures["seconds"] = chosen.seconds + again.fit.seconds
    return Learned(again.model, again.cooccurrence, chosen, measures, refitted=True)


def _learn_again(
    chosen: Chosen,
    sequences: Sequences,
    items: int,
    config: RankerConfig,
    seed: int,
    text: Tensor | None,
    folder: Path | None,
) -> Learned:
    """Fits on everything, as long as was chosen where something was held out."""
    where = folder and folder / "refit"
    found = fit(sequences, items, config, seed, text=text, hold_out=False, epochs=chosen.epoch, folder=where)
    counted = count_cooccurrence(sequences, items, chosen.rarity)
    cooccurrence = replace(counted, decay=chosen.decay, weight=chosen.weight)
    measures = {
        **chosen.measures(),
        "parameters": sum(p.numel() for p in found.model.parameters()),
        "seconds": found.seconds,
    }
    return Learned(found.model, cooccurrence, found, measures, refitted=True)


def tune_cooccurrence(
    model: SequenceModel, counted: list[CoOccurrence], past: Sequences, targets: Ints
) -> CoOccurrence:
    """The co-occurrence with the decay and the weight that rank held-out items best; weight 0 where counts do not help.

    Only the items that it knows of move, so each user's scores are sorted once and every choice is counted from there.
    """
    users = held_out_users(past, targets)
    if len(users) > USERS_TO_TUNE_ON:
        users = np.sort(np.random.default_rng(0).choice(users, USERS_TO_TUNE_ON, replace=False))
    weights = np.array(WEIGHTS, dtype=np.float32)
    choices = [replace(cooccurrence, decay=decay) for cooccurrence in counted for decay in DECAYS]
    totals = np.zeros((len(choices), len(weights)))
    for some, scores in held_out_scores(model, past, users):
        ordered = np.sort(scores, axis=1)
        ranks = np.empty((len(choices), len(weights), len(some)), dtype=np.int64)
        for row, user in enumerate(some):
            history, target = past.row(user), targets[user]
            for at, cooccurrence in enumerate(choices):
                found, strength = cooccurrence.strength(history)
                own = scores[row, target] + weights * strength[found == target].sum()  # [weights]
                plain = scores[row, found][:, None]  # [found, 1]
                earlier = (found < target)[:, None]
                moved = _before(plain + weights * strength[:, None], own, earlier) - _before(plain, own, earlier)
                ranks[at, :, row] = _rank(ordered[row], scores[row, :target], own) + moved
        for at, weight in np.ndindex(totals.shape):
            totals[at, weight] += gains(ranks[at, weight], 10).sum()
    at, weight = divmod(int(totals.argmax()), len(weights))
    return replace(choices[at], weight=WEIGHTS[weight])


def _rank(ordered: Floats, earlier: Floats, own: Floats) -> Ints:
    """Rank, as `measures.ranks_of` gives it, of some values among scores that lie sorted; int64 like `own`.

    Args:
        ordered: all scores, ascending.
        earlier: those of the columns before the values' own.
        own: the values.
    """
    ranks = len(ordered) - np.searchsorted(ordered, own, side="right")
    for at in np.flatnonzero(np.searchsorted(ordered, own) + ranks < len(ordered)):
        ranks[at] += (earlier == own[at]).sum()
    return ranks


def _before(values: Floats, own: Floats, earlier: Bools) -> Ints:
    """Number of values [found, 1 or W] before each of `own` [W]: higher ones, of equal ones those `earlier`."""
    before: Ints = ((values > own) | ((values == own) & earlier)).sum(axis=0)
    return before


def train_ranker(
    dataset: Path,
    histories: Path,
    clusters: Path,
    config: RankerConfig,
    seed: int,
    threads: int,
    out: Path,
    tuned: Path | None = None,
    measured: Path | None = None,
) -> dict[str, float | int | str]:
    """Trains the ranker on the past and writes it as the folder `out`.

    Killed and started again with the same arguments, it goes on from its last epoch. Under torchrun the processes share
    the work and the first one writes.

    Args:
        dataset: the data set's folder.
        histories: histories.parquet: everyone's past.
        clusters: the clusters' folder; gives the items, their order and their text vectors.
        config: model and training.
        seed: of everything random.
        threads: for the numerics.
        out: folder for ranker.safetensors, ranker.json, training.json.
        tuned: folder of `tune_ranker`; what it found replaces the same settings of `config`.
        measured: a ranker whose epoch and co-occurrence hold here too, so that nothing is held out to choose them.

    Returns:
        Measures on the held-out items, before they are trained on; those of the fit alone with `measured`.

    Raises:
        DataError: an artifact is missing, or no history names two items of the catalogue.
    """
    if tuned is not None:
        config = RankerConfig.model_validate({**config.model_dump(), **best_settings(tuned)})
    with processes(threads) as rank:
        material = read_material(dataset, histories, clusters, config)
        work = out.with_name(f".{out.name}.checkpoints")
        started = time.perf_counter()
        chosen = Chosen.load(measured) if measured is not None else None
        arguments = (material.sequences, len(material.items), config, seed)
        learned = learn(*arguments, text=material.text, folder=work, measured=chosen)
        measures = {**learned.measures, "wall_seconds": time.perf_counter() - started}
        if rank == 0:
            ranker = assemble(learned, material, config, seed)
            training = {"measures": measures, "curve": learned.fit.curve, "config": config.model_dump()}
            ranker.save(out, training)
            remove_folder(work, f"{'choose' if chosen is None else 'refit'}/{CHECKPOINT}")
    return measures


@dataclass(frozen=True)
class Material:
    """Training data of the ranker, in cluster order.

    Attributes:
        items: item ids.
        slices: each node's (start, stop) in `items`.
        sequences: positions in `items`, one sequence a user, oldest first.
        text: float32 [items, text dim], or None.
        digests: of what it was made from.
    """

    items: list[str]
    slices: dict[str, tuple[int, int]]
    sequences: Sequences
    text: Tensor | None
    digests: dict[str, str]


def read_material(dataset: Path, histories: Path, clusters: Path, config: RankerConfig) -> Material:
    """Reads the artifacts; events of items that no cluster holds are left out.

    Raises:
        DataError: an artifact is missing, or no history names two items of the catalogue.
    """
    tree = Clusters.load(clusters)
    past = Histories.load(histories)
    position = {item: at for at, item in enumerate(tree.item_order)}
    places = np.fromiter((position.get(item, -1) for item in past.item_ids), dtype=np.int64, count=len(past.item_ids))
    owner = np.repeat(np.arange(len(past)), np.diff(past.offsets))[places >= 0]
    lengths = np.bincount(owner, minlength=len(past))
    sequences = Sequences(places[places >= 0], np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    if lengths.max(initial=0) < 2:
        raise DataError(str(histories), "no history names two items of the catalogue", expected="one that does")
    return Material(
        items=tree.item_order,
        slices={node: tree.slice_of(node) for node in tree.nodes},
        sequences=sequences,
        text=_text_vectors(tree) if config.use_text else None,
        digests={"clusters_digest": tree.digest, "dataset_fingerprint": str(Dataset(dataset).info["fingerprint"])},
    )


def _text_vectors(clusters: Clusters) -> Tensor | None:
    """The content part of the clusters' item vectors (text, categories, year), of unit length; None without content."""
    dim = int(clusters.info.get("embedding", {}).get("content_dim", 0))
    if not dim:
        return None
    content = torch.from_numpy(np.ascontiguousarray(clusters.item_vectors[:, :dim], dtype=np.float32))
    return torch.nn.functional.normalize(content, dim=1)


def assemble(learned: Learned, material: Material, config: RankerConfig, seed: int) -> Ranker:
    """The artifact of a trained model."""
    with torch.inference_mode():
        vectors: Floats = learned.model.item_vectors().numpy()
    projection = learned.model.projection()
    counts = np.bincount(material.sequences.items, minlength=len(material.items))
    fitted = {"config": config.model_dump(), "seed": seed, "refitted": learned.refitted}
    return Ranker(
        encoder=learned.model.encoder,
        vectors=vectors,
        popularity=np.log((counts + 1) / (counts.sum() + len(counts))).astype(np.float32),
        cooccurrence=learned.cooccurrence,
        items=material.items,
        slices=material.slices,
        info={**fitted, **material.digests},
        projection=None if projection is None else projection.numpy(),
    )


def best_settings(tuned: Path) -> dict[str, Any]:
    """Best trial of `tune_ranker`, as settings of `RankerConfig`.

    Raises:
        DataError: best.json is missing or broken.
    """
    file = tuned / "best.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(str(file), "cannot be read", expected="what tune_ranker wrote") from error
