"""Fine-tuning of the planner: from mined transitions and clusters to a Hugging Face folder.

Every interest becomes a token of the vocabulary. The language model reads contexts, as many as its minutes allow and
frequent ones first; then the tokens' rows in the head are fitted to the states, so that their softmax is a choice
model's distribution, mixed with what people chose as far as validation users agree. The rest of the model stays as it
is: docs/planner.md tells what gradient steps through it gave.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from newfound.clusters import Clusters
from newfound.compute.distributed import alone, on_accelerator, processes, rank, take_from_first
from newfound.config import FinetuneConfig, PlannerConfig
from newfound.files import new_folder, remove_folder, write_text
from newfound.planner.base_model import base_model
from newfound.planner.decoding.backbone import Backbone, load_backbone
from newfound.planner.planner import Planner, closed_log_probs
from newfound.planner.prompt import PromptCodec, load_tokenizer
from newfound.planner.states import CONTEXTS_FILE, ROUND, States, read_states
from newfound.planner.training.export import save_model
from newfound.planner.training.head_fit import HeadData, HeadFit, lower_words
from newfound.planner.training.training_set import OBSERVED, TrainingSet, read_training_set, reading_order
from newfound.planner.training.validation import sample, validation_measures
from newfound.transitions.artifact import Transitions
from newfound.transitions.choice_model import Choices
from newfound.types import Ints

log = logging.getLogger("newfound.planner")

RECORD: Final = "training.json"
READING: Final = "inputs.sha256"  # what the states that were read so far were read from
PENALTIES: Final = (1e-3, 1e-4, 1e-2)  # of the fit, tried in turn
PRIORS: Final = (300.0, 30.0)  # choices that the teacher's distribution counts for beside a context's own
WORDS: Final = 512  # states by which the rows of words are lowered


def finetune_planner(
    transitions: Path,
    clusters: Path,
    config: PlannerConfig,
    seed: int,
    out: Path,
    init: Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Fits the planner and writes it as a Hugging Face folder with its prompt, its states and its training record.

    It reads on a GPU where there is one. Under torchrun the processes share the reading; the first one fits and writes.
    Killed and started again with the same arguments, it keeps what it has read, which lies beside `out` until the end.

    Args:
        transitions: folder of the mined transitions.
        clusters: folder of the clusters.
        out: written at the end, whole or not at all.
        init: a planner whose states are taken over, instead of the base model.
        threads: for the numerics of each process; None: as torch has it.

    Returns:
        Contexts read, seconds, the chosen fit's measures on validation users, and the match rate. Where descriptions
        are made of item ids, a language model has nothing to read: the folder then holds a record alone, and the table
        comes from pair frequencies.
    """
    with processes(threads):
        loaded = Clusters.load(clusters)
        record = _finetune(Transitions.load(transitions, loaded), loaded, config, seed, out, init)
        return {name: value for name, value in record.items() if isinstance(value, float | int | str)}


def _finetune(
    transitions: Transitions, clusters: Clusters, config: PlannerConfig, seed: int, out: Path, init: Path | None
) -> dict[str, Any]:
    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    if not clusters.has_words:
        log.warning("planner: needs text or categories, and the items have none; the table will be pair frequencies")
        return _leave_out(out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        base = init if init is not None else base_model(config.model, Path(place) / "base", config.model_sha256)
        data = read_training_set(transitions, config.finetune, seed)
        take_from_first([torch.from_numpy(data.teacher.bias), torch.from_numpy(data.teacher.pull)])
        codec = PromptCodec.extend(load_tokenizer(base), clusters.descriptions)
        with on_accelerator():
            backbone = load_backbone(base, config.precision)
        order = reading_order(transitions, config.finetune.contexts_at_most)
        work = out.with_name(f".{out.name}.reading")
        if rank() == 0:
            _prepare(work, base, codec, order, config)
        states = _read(backbone, codec, order, config, init, work)
        if rank() > 0:
            return {}
        # Where everybody is learned from, nobody is left to choose by: the settings are those that were measured.
        everybody = transitions.record["config"]["learn_from"] == "all"
        count = 0 if everybody else config.finetune.evaluation_choices
        validation = sample(transitions.choices("validation"), count, seed)
        measured = _measured(init) if everybody and init is not None else None
        with alone():
            rows, record = fit_rows(data, states, validation, config.finetune, measured)
            record |= {
                "contexts": len(states),
                "clusters": clusters.digest,
                "init": "planner" if init is not None else "base model",
                "seconds": round(time.monotonic() - started, 2),
            }
            _write(rows, states, backbone, codec, base, clusters, record, config, out)
    remove_folder(work, READING)
    return record


def _prepare(work: Path, base: Path, codec: PromptCodec, order: Ints, config: PlannerConfig) -> None:
    """Keeps what was read by a call with the same inputs, and nothing else."""
    found = hashlib.sha256(
        np.ascontiguousarray(order).tobytes() + f"{codec.digest} {config.precision} {ROUND}".encode()
    )
    for file in sorted([*base.glob("*.safetensors"), *base.glob("config.json"), *base.glob("states*.npy")]):
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    note = work / READING
    if not (note.is_file() and note.read_text(encoding="utf-8") == found.hexdigest()):
        remove_folder(work, READING)
        write_text(note, found.hexdigest())


def _read(
    backbone: Backbone, codec: PromptCodec, order: Ints, config: PlannerConfig, init: Path | None, work: Path
) -> States:
    """The states that an earlier planner left, and those that the minutes allow beyond them."""
    had = init is not None and (init / CONTEXTS_FILE).is_file()
    states = States.load(init) if init is not None and had else None
    if states is not None:
        order = order[states.rows([tuple(context) for context in order.tolist()]) < 0]
        if not len(order) or not config.finetune.minutes:
            return states
    read = read_states(backbone, codec, order, config.finetune.minutes, work)
    return read if states is None else states.joined(read)


def _measured(planner: Path) -> tuple[float, float] | None:
    """Penalty and prior of a planner's fit, where its record tells them."""
    try:
        record = json.loads((planner / RECORD).read_text(encoding="utf-8"))
        return float(record["penalty"]), float(record["prior"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fit_rows(
    data: TrainingSet,
    states: States,
    validation: Choices,
    config: FinetuneConfig,
    measured: tuple[float, float] | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """The interests' rows under the penalty and the prior that rank validation users' choices best.

    Args:
        data: what is learned.
        states: of contexts; those that were withheld are not learned from.
        validation: choices of other people; where there are none, the first penalty is taken, and the teacher alone.
        config: of the fine-tuning.
        measured: penalty and prior that are taken as they are; None: they are chosen.

    Returns:
        [N, dim], and the record of all fits with the chosen one's measures.
    """
    learn = data.may_learn(states.contexts)
    contexts, values = states.contexts[learn], torch.from_numpy(np.array(states.values[learn]))
    teacher, counts = torch.from_numpy(data.teacher.distribution(contexts)), torch.from_numpy(data.counts(contexts))
    made = counts.sum(1, keepdim=True)
    excluded = torch.zeros(teacher.shape, dtype=torch.bool).scatter(1, torch.from_numpy(contexts), True)
    head, weights = HeadFit(values, teacher.shape[1]), 1 + OBSERVED * made[:, 0]
    at = states.rows([tuple(context) for context in validation.contexts.tolist()])
    asked = Choices(validation.contexts[at >= 0], validation.labels[at >= 0], validation.known[at >= 0])
    of_asked = np.array(states.values[at[at >= 0]])
    fits: list[dict[str, float]] = []
    best: tuple[float, Tensor, dict[str, float]] | None = None

    def attempt(penalty: float, prior: float | None) -> None:
        nonlocal best
        targets = teacher if prior is None else (prior * teacher + counts) / (prior + made)
        rows = head.fit(HeadData(values, targets, weights, excluded), penalty)
        scores = closed_log_probs(of_asked @ rows.numpy().T, [tuple(c) for c in asked.contexts.tolist()])
        measures = validation_measures(scores, asked) if len(asked) else {}
        fits.append({"penalty": penalty, "prior": prior or 0.0, **measures})
        log.info("planner: fitted, %s", ", ".join(f"{name} {value:.4g}" for name, value in fits[-1].items()))
        value = measures.get(config.choose_by, -len(fits))
        if best is None or value > best[0]:
            best = value, rows, fits[-1]

    if measured is not None:
        attempt(measured[0], measured[1] or None)
    for penalty in PENALTIES if measured is None else ():
        attempt(penalty, None)
    assert best is not None
    for prior in PRIORS if len(asked) and measured is None else ():
        attempt(best[2]["penalty"], prior)
    _, rows, chosen = best
    found = {name: chosen[name] for name in ("penalty", "prior")}
    told = {f"validation_{name}": value for name, value in chosen.items() if name not in found}
    return rows, {"fits": fits, **found, **told}


def _write(
    rows: Tensor,
    states: States,
    backbone: Backbone,
    codec: PromptCodec,
    base: Path,
    clusters: Clusters,
    record: dict[str, Any],
    config: PlannerConfig,
    out: Path,
) -> None:
    """Writes the folder, reads it back, and measures the match rate on what was written."""
    first, last = codec.first_token, codec.first_token + len(codec)
    words = torch.cat([backbone.head[:first], backbone.head[last:]]).float().cpu()
    some = np.linspace(0, len(states) - 1, min(WORDS, len(states))).astype(int)
    low = lower_words(words, rows, torch.from_numpy(np.array(states.values[np.unique(some)])))
    head = torch.cat([low[:first], rows, low[first:]])
    embedding = backbone.embedding.cpu()
    inputs = torch.stack([embedding[list(words)].float().mean(0) for words in codec.words])
    with new_folder(out, RECORD) as folder:
        save_model(base, folder, backbone, inputs, head, codec.first_token)
        codec.save(folder)
        states.save(folder)
        with on_accelerator():
            planner = Planner(load_backbone(folder, config.precision), codec, clusters.interface)
        wanted = np.unique(np.linspace(0, len(states) - 1, config.match_rate_contexts).astype(int))
        contexts = [tuple(clusters.interface[c] for c in states.contexts[at]) for at in wanted]
        record["match_rate"] = planner.match_rate(contexts)
        log.info("planner: match rate %.3f over %d contexts", record["match_rate"], len(contexts))
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _leave_out(out: Path) -> dict[str, Any]:
    """A planner's folder without a planner."""
    record = {"contexts": 0, "left_out": "the items have neither text nor categories"}
    if rank() > 0:
        return record
    with new_folder(out, RECORD) as folder:
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record
