"""A planner that reads whole histories, and learns what the ranker does not know.

    python -m tests.benchmarks.whole_histories --sets movielens movietweetings

after `make bench-worth`, whose runs and folds it reads; it writes runs/bench/whole_histories.json.

A person's liked titles stand in one text, oldest first; one pass of the language model, whose weights stay, gives its
state after every title, so that every moment of the person has what the model made of everything before it. A head on
these states is fitted to what people chose, where the decision without it already has its say:

    log P(c) = log P_decision(c) + z_c(state) + constant        among the interests that are new to the person

with z either a row for every interest or a bilinear form with the interests' texts, whichever validation users prefer,
as they choose layer and penalty. The head's worth is the gain in log-likelihood on test users. The same head reads the
faded mean of the sentence encoder's vectors instead, the states of a model with random weights, and the states of other
people's moments.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from newfound.clusters import Clusters
from newfound.clusters.embed import sentences, unit
from newfound.config import TrainingConfig, load_config
from newfound.datasets import Dataset
from newfound.evaluation import moments as protocols
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.decision_fit import Source
from newfound.evaluation.methods import put
from newfound.evaluation.moments import Events
from newfound.planner.base_model import base_model
from newfound.recommend.fit import fit_nested_logit
from newfound.recommend.item_terms import FADE
from newfound.recommend.nested_logit import Coefficients, inclusive_values, joint_utilities
from newfound.types import Bools, Doubles, Floats, Ints
from tests.benchmarks.bench_worth import ROOT, RUNS, SETS, source_of
from tests.benchmarks.folds import fold_parts
from tests.benchmarks.record import machine, write_record

LAYERS: Final = (10,)  # whose states are read; validation users choose among them
TOKENS: Final = 480  # of a person, the last ones
TITLE: Final = 12  # tokens of a title, at most
DIRECTIONS: Final = 64
PENALTIES: Final = (1e-3, 1e-2, 1e-1, 1.0)
ITERATIONS: Final = 60
FORMS: Final = ("row", "bilinear")

log = logging.getLogger("newfound.bench")


@dataclass(frozen=True)
class Reader:
    """What is known of every moment of every user, by the moment's user and place in their journey."""

    states: Mapping[tuple[str, int], Floats]

    def of(self, events: Events) -> Floats:
        """[B, dim], zeros where nothing was read."""
        width = len(next(iter(self.states.values())))
        nothing = np.zeros(width, dtype=np.float32)
        places = events.journeys.position[events.at].tolist()
        return np.stack([self.states.get(key, nothing) for key in zip(events.users.tolist(), places, strict=True)])


def read_histories(
    runs: Path, clusters: Clusters, config: TrainingConfig, base: Path, *, random: bool = False
) -> dict[int, Reader]:
    """By layer, the language model's states before every moment of every user; kept beside the run."""
    file = runs / ("read-random.npz" if random else "read.npz")
    if not file.exists():
        people = protocols.read_journeys(
            runs / "dataset", clusters, ("train", "validation", "test"), config.evaluation.users_at_most, config.seed
        )
        users, places, states = _read(people, config, _titles(runs, clusters), base, random)
        np.savez(file, users=users, places=places, **{f"layer_{n}": found for n, found in states.items()})
    with np.load(file) as kept:
        keys = list(zip(kept["users"].tolist(), kept["places"].tolist(), strict=True))
        names = [name for name in kept.files if name.startswith("layer_")]
        return {int(name[6:]): Reader(dict(zip(keys, kept[name], strict=True))) for name in names}


def _titles(runs: Path, clusters: Clusters) -> dict[str, str]:
    items = Dataset(runs / "dataset").frame("items")
    words = dict(zip(items["item_id"], sentences(items), strict=True))
    return {item: words[item][:80] for item in clusters.item_order}


def _read(
    people: protocols.Journeys, config: TrainingConfig, titles: Mapping[str, str], base: Path, random: bool
) -> tuple[Any, Ints, dict[int, Floats]]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder = base_model(None, base)
    shape = AutoConfig.from_pretrained(folder, num_hidden_layers=LAYERS[-1])
    torch.manual_seed(config.seed)
    model: Any = AutoModel.from_config(shape) if random else AutoModel.from_pretrained(folder, config=shape)
    model = model.float().eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    head = tokenizer("Films and things that a person liked, oldest first:")["input_ids"]
    (end,) = tokenizer(";")["input_ids"][-1:]
    tokens = {item: [*tokenizer(" " + text)["input_ids"][:TITLE], end] for item, text in titles.items()}
    events = protocols.novel_events(people, config.transitions.context)
    rows = people.row[events.at]
    users: list[str] = []
    places: list[int] = []
    found: dict[int, list[Floats]] = {layer: [] for layer in LAYERS}
    with torch.inference_mode():
        for number, row in enumerate(np.unique(rows)):
            own = np.sort(events.at[rows == row])
            text, ends = _text(people, int(people.offsets[row]), own, tokens)
            if not text:
                continue
            said = model(input_ids=torch.tensor([[*head, *text]]), output_hidden_states=True)
            # The last layer's hidden state has been through the final norm, which directions and scale forget again.
            for event, at in zip(own.tolist(), ends, strict=True):
                if at >= 0:
                    users.append(people.users[row])
                    places.append(int(people.position[event]))
                    for layer in LAYERS:
                        found[layer].append(said.hidden_states[layer][0, len(head) + at].numpy().copy())
            if number % 200 == 0:
                log.info("histories read of %d of %d people", number, len(np.unique(rows)))
    return np.array(users), np.array(places, dtype=np.int64), {n: np.stack(states) for n, states in found.items()}


def _text(people: protocols.Journeys, start: int, events: Ints, tokens: Mapping[str, list[int]]) -> Any:
    """Tokens of what a person liked up to their last moment, and the place of the last one before each; -1: cut off."""
    text: list[int] = []
    ends = dict.fromkeys(events.tolist(), -1)
    for at in range(start, int(events[-1]) + 1):
        if at in ends:
            ends[at] = len(text) - 1
        if people.positives[at]:
            text += tokens.get(people.items[at], [])
    last = ends[int(events[-1])] + 1
    text = text[:last]
    gone = max(len(text) - TOKENS, 0)
    return text[gone:], [at - gone if at >= gone else -1 for at in ends.values()]


def profiles(source: Source, events: Events) -> Floats:
    """[B, dim], the faded mean of the sentence encoder's vectors of what was consumed."""
    length = source.ranker.encoder.length
    found = np.zeros((len(events), source.items.text.shape[1]), dtype=np.float32)
    for row, history in enumerate(events.histories):
        known = source.ranker.positions(history[-length:])
        if len(known):
            weights = FADE ** np.arange(len(known) - 1, -1, -1.0)
            found[row] = (weights / weights.sum()) @ source.items.text[known]
    return found


def decided(source: Source, events: Events, coefficients: Coefficients) -> tuple[Floats, Bools]:
    """log P of every interest at every moment [B, N], and whether it could be chosen."""
    rows: list[Doubles] = []
    for batch in source.moments(events):
        utility = np.zeros(batch.allowed.shape, dtype=np.float32)
        for name, weight in coefficients.items.items():
            utility += np.float32(weight) * batch.items[name]
        utility[~batch.allowed] = -np.inf
        for row in range(len(utility)):
            offsets = coefficients.offsets({name: term[row] for name, term in batch.clusters.items()})
            joint = joint_utilities(utility[row], source.bounds, offsets, coefficients.dissimilarity)
            rows.append(inclusive_values(joint, source.bounds))
    found = np.stack(rows)
    open_: Bools = np.isfinite(found)
    top = found.max(axis=1, keepdims=True)
    found = found - top - np.log(np.exp(found - top).sum(axis=1, keepdims=True))
    return np.where(open_, found, -1e9).astype(np.float32), open_


@dataclass(frozen=True)
class Part:
    """Moments of a fold: what the decision says of them, and who chose what."""

    events: Events
    base: Floats
    labels: torch.Tensor

    @classmethod
    def of(cls, source: Source, events: Events, coefficients: Coefficients) -> Part:
        """The moments whose interest could have been shown."""
        base, open_ = decided(source, events, coefficients)
        held = np.flatnonzero(open_[np.arange(len(events)), events.labels])
        return cls(events.take(held), base[held], torch.from_numpy(events.labels[held]))


def whitened(learned: Floats, *others: Floats) -> list[torch.Tensor]:
    """The leading directions of what was learned from, each with variance one."""
    mean = learned.mean(axis=0)
    _, scale, directions = np.linalg.svd((learned - mean).astype(np.float64), full_matrices=False)
    count = min(DIRECTIONS, int((scale > 1e-6 * scale[0]).sum()))
    turn = directions[:count].T / scale[:count] * np.sqrt(len(learned))
    return [torch.from_numpy(((x - mean) @ turn).astype(np.float32)) for x in (learned, *others)]


def head(form: str, x: torch.Tensor, part: Part, texts: torch.Tensor, penalty: float) -> torch.Tensor:
    """The head [dim, N] that maximises the likelihood of the choices, less a penalty on its squared length."""
    weight = torch.zeros(x.shape[1], texts.shape[0] if form == "row" else texts.shape[1], requires_grad=True)
    base = torch.from_numpy(part.base)
    optimizer = torch.optim.LBFGS([weight], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        rows = weight if form == "row" else weight @ texts.T
        loss = torch.nn.functional.cross_entropy(base + x @ rows, part.labels) + penalty * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (weight if form == "row" else weight @ texts.T).detach()


def likely(rows: torch.Tensor, x: torch.Tensor, part: Part) -> Doubles:
    """log P of what was chosen, [B]."""
    scores = torch.from_numpy(part.base).double() + (x @ rows).double()
    found: Doubles = torch.log_softmax(scores, dim=1)[torch.arange(len(x)), part.labels].numpy()
    return found


def gain(
    inputs: Sequence[Mapping[str, Floats]], learn: Part, choose: Part, test: Part, texts: torch.Tensor
) -> tuple[Doubles, str]:
    """What a head gains on test moments, [B]; input, form and penalty are chosen by `choose`.

    Args:
        inputs: of learned, choosing and test moments: vectors [B, dim] by name.
    """
    none = likely(torch.zeros(1, len(texts)), torch.zeros(len(choose.labels), 1), choose).mean()
    best: tuple[float, str, Any] = (float(none), "nothing", None)
    for name in inputs[0]:
        x, y, z = whitened(*(one[name] for one in inputs))
        for form in FORMS:
            for penalty in PENALTIES:
                rows = head(form, x, learn, texts, penalty)
                value = float(likely(rows, y, choose).mean())
                if value > best[0]:
                    best = (value, f"{name}, {form}, {penalty:g}", (rows, z))
    before = likely(torch.zeros(1, len(texts)), torch.zeros(len(test.labels), 1), test)
    return (likely(*best[2], test) - before if best[2] else np.zeros(len(before))), best[1]


def whole_histories(
    runs: Path, folds: Sequence[tuple[Source, Path]], config: TrainingConfig, base: Path
) -> dict[str, float]:
    """`history_reader.<what it reads>.<beside what>.worth` with intervals, in nats a choice.

    Args:
        runs: a finished run.
        folds: a decision's sources and the data set of every fold.
        config: of the run.
        base: where the base model is unpacked.
    """
    interests = folds[0][0].interest
    readers = {"states": read_histories(runs, interests, config, base)}
    readers["random_states"] = read_histories(runs, interests, config, base, random=True)
    gains: dict[str, list[Doubles]] = {}
    users = []
    for source, dataset in folds:
        spans = np.diff(source.bounds)
        sums = np.add.reduceat(source.items.text, source.bounds[:-1], axis=0)
        texts = torch.from_numpy(unit(sums / spans[:, None] - source.items.text.mean(axis=0)))
        groups = [
            protocols.novel_events(
                protocols.read_journeys(dataset, interests, [name], config.evaluation.users_at_most, config.seed),
                config.transitions.context,
            )
            for name in ("train", "validation", "test")
        ]
        plain = [name for name in source.item_names if name != "text"]
        stored = [batch for events in groups[:2] for batch in source.moments(events)]
        for beside, names in (("ranker_and_teacher", plain), ("all", source.item_names)):
            fit = fit_nested_logit(lambda held=stored: held, source.bounds, names, ("choice", "demand"))
            learn, choose, test = (Part.of(source, events, fit.coefficients) for events in groups)
            if beside == "all":
                users.append(test.events.users)
            inputs: dict[str, list[dict[str, Floats]]] = {
                name: [
                    {f"layer {n}": one.of(part.events) for n, one in layers.items()} for part in (learn, choose, test)
                ]
                for name, layers in readers.items()
            }
            inputs["sentence_encoder"] = [{"mean": profiles(source, part.events)} for part in (learn, choose, test)]
            rng = np.random.default_rng(config.seed)
            inputs["permuted_states"] = [
                {name: rng.permutation(values) for name, values in one.items()} for one in inputs["states"]
            ]
            for name, values in inputs.items():
                found, chosen = gain(values, learn, choose, test, texts)
                gains.setdefault(f"history_reader.{name}.{beside}.worth", []).append(found)
                log.info("head on %s beside %s: %+.4f (%s)", name, beside, found.mean(), chosen)
    boot = Bootstrap(np.concatenate(users), resamples=1000, confidence=0.95, seed=config.seed)
    record: dict[str, float] = {}
    for key, values in gains.items():
        put(record, key, boot.mean(np.concatenate(values)))
    return record


def main() -> None:
    """Measures the sets that are named, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [one.name for one in SETS if one.folds > 1]
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    record: dict[str, float] = {}
    for one in (one for one in SETS if one.name in options.sets):
        config = load_config(ROOT / "pipelines" / "configs" / f"{one.config}.yaml", {})
        folds = [fold_parts(RUNS / one.name, config, fold) for fold in range(one.folds)]
        sources = [(source_of(parts, config), parts["dataset"]) for parts in folds]
        found = whole_histories(RUNS / one.name, sources, config, RUNS / "base")
        record |= {f"{one.name}.{key}": value for key, value in found.items()}
    write_record(ROOT / "runs" / "bench" / "whole_histories.json", {**record, **machine("transformers")})


if __name__ == "__main__":
    main()
