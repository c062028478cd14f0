"""What the planner's benchmarks are measured on: fixed descriptions, a model tuned for them, whole rows of a table."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import torch

from newfound.config import FinetuneConfig
from newfound.planner.base_model import base_model
from newfound.planner.decoding.backbone import LeanBackbone, end_token, load_backbone
from newfound.planner.planner import Planner
from newfound.planner.prompt import PromptCodec, has_planner, load_tokenizer
from newfound.planner.training.trainable import LeanTrainable
from newfound.planner.training.trainer import Trainer, answer_tokens
from newfound.planner.training.training_set import TrainingSet
from newfound.transitions.choice_model import ChoiceModel, Choices

SEED = 7
LARGEST = 800
TUNING = FinetuneConfig(share_first=1, probe_contexts=4000)


def descriptions(n: int, folder: Path) -> list[str]:
    """The first n of 800 fixed descriptions, such as "harbour, tales of harbour".

    They are made of words that are one token each; what follows the first one is soon learned. Every tenth begins as
    the one before it does ("harbour, songs of harbour"), so that first tokens alone do not decide.

    Args:
        n: at most 800.
        folder: a model's, for its tokenizer.
    """
    vocabulary = load_tokenizer(folder).get_vocab()
    words = [w[1:] for w, _ in sorted(vocabulary.items(), key=lambda e: e[1]) if re.fullmatch("Ġ[a-z]{5,9}", w)]
    chosen = [words[i] for i in np.random.default_rng(SEED).permutation(len(words))[:LARGEST]]
    return [
        f"{chosen[i - 1]}, songs of {chosen[i - 1]}" if i % 10 == 9 else f"{chosen[i]}, tales of {chosen[i]}"
        for i in range(n)
    ]


def bench_model(folder: Path) -> Path:
    """A planner over all 800 descriptions, tuned once for made-up behaviour.

    It writes descriptions, as a planner does, and is unsure which.
    """
    if has_planner(folder):
        return folder
    base = base_model(None, folder.with_name("base-model"))
    backbone = load_backbone(base, "bfloat16")
    assert isinstance(backbone, LeanBackbone)
    texts = descriptions(LARGEST, base)
    codec = PromptCodec(load_tokenizer(base), texts, end_token(base))
    draw = np.random.default_rng(SEED)
    level = draw.normal(0, 0.7, LARGEST).astype(np.float32)  # some are more popular than others
    words = torch.nn.functional.normalize(backbone.model.weights["embedding"][[a[0] for a in codec.answers]].float())
    alike = (words @ words.T).cpu().numpy()  # words that the base model finds alike follow each other
    alike = 1.2 * (alike - alike.mean()) / alike.std()
    pull = np.stack([0.7 * alike, alike]).astype(np.float32)
    contexts = draw.integers(0, LARGEST, (4000, 2))
    contexts = np.unique(contexts[contexts[:, 0] != contexts[:, 1]], axis=0)
    targets = ChoiceModel(level, pull).distribution(contexts)
    lessons = TrainingSet(contexts, np.ones(len(contexts), dtype=np.float32), targets)
    none = Choices(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros((0, LARGEST), bool))
    student = LeanTrainable(backbone.model, TUNING, SEED, answer_tokens(codec))
    Trainer(student, codec, texts, lessons, none, TUNING, SEED).run()
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    student.save(base, part)
    codec.save(part)
    part.rename(folder)
    return folder


def planner_for(folder: Path, n: int) -> Planner:
    """The model over the first n descriptions."""
    texts = descriptions(n, folder)
    codec = PromptCodec(load_tokenizer(folder), texts, end_token(folder))
    return Planner(load_backbone(folder, "bfloat16"), codec, texts)


def rows_of_table(nodes: list[str], pairs: int) -> list[tuple[str, str]]:
    """Whole rows, about so many pairs: some first interests with every second one, as a table is built."""
    n = len(nodes)
    firsts = np.random.default_rng(SEED).permutation(n)[: max(1, round(pairs / n))]
    return [(nodes[a], nodes[b]) for a in sorted(firsts.tolist()) for b in range(n) if a != b]
