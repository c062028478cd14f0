"""Random tiny language models with a tokenizer, and clusters and transitions for them to learn."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import FinetuneConfig, PlannerConfig, TransitionsConfig
from newfound.planner.decoding.backbone import LeanBackbone
from newfound.planner.decoding.llama import Llama, Shape, fuse

torch.set_num_threads(1)  # the models are tiny: a second thread only waits
VOCABULARY = 40


def tiny_config(seed: int, vocabulary: int = VOCABULARY) -> dict[str, object]:
    """A Llama configuration small enough for exhaustive scoring; the seed varies its shape."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "hidden_size": 24,
        "num_attention_heads": 4 if seed % 2 else 2,
        "num_key_value_heads": 2 if seed % 2 else 1,
        "head_dim": 12,
        "intermediate_size": 40,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 2,
        "dtype": "float32",
    }


def tiny_weights(config: dict[str, object], seed: int, sharpness: float = 3.0) -> dict[str, torch.Tensor]:
    """Random weights under Hugging Face's names; `sharpness` spreads the logits as training would."""
    draw = torch.Generator().manual_seed(seed)
    shape = Shape.from_config(config)
    assert shape is not None

    def normal(*size: int, scale: float = 0.3) -> torch.Tensor:
        return torch.randn(*size, generator=draw) * scale

    raw = {
        "model.embed_tokens.weight": normal(shape.vocabulary, shape.dim, scale=1.0) * sharpness / 3,
        "model.norm.weight": 1 + normal(shape.dim),
    }
    for i in range(shape.layers):
        base = f"model.layers.{i}"
        width = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
        for part, heads in width.items():
            raw[f"{base}.self_attn.{part}_proj.weight"] = normal(heads * shape.head_dim, shape.dim)
        raw[f"{base}.self_attn.o_proj.weight"] = normal(shape.dim, shape.heads * shape.head_dim)
        raw[f"{base}.mlp.gate_proj.weight"] = normal(shape.hidden, shape.dim)
        raw[f"{base}.mlp.up_proj.weight"] = normal(shape.hidden, shape.dim)
        raw[f"{base}.mlp.down_proj.weight"] = normal(shape.dim, shape.hidden)
        raw[f"{base}.input_layernorm.weight"] = 1 + normal(shape.dim)
        raw[f"{base}.post_attention_layernorm.weight"] = 1 + normal(shape.dim)
    return raw


def tiny_backbone(seed: int, sharpness: float = 3.0, dtype: torch.dtype = torch.float32) -> LeanBackbone:
    """A random model in memory."""
    config = tiny_config(seed)
    shape = Shape.from_config(config)
    assert shape is not None
    return LeanBackbone(Llama(shape, fuse(shape, tiny_weights(config, seed, sharpness), dtype)))


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE with a few merges and three special tokens, as small models have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["crime noir space opera person interests oldest first new lately"] * 4, trainer)
    return tokenizer


DESCRIPTIONS = [
    "crime noir",
    "crime",
    "space opera",
    "person interests",
    "oldest new",
    "lately space",
    "new noir",
    "opera",
]


def write_world(folder: Path) -> Path:
    """Eight clusters under two parents, and transitions in which the second interest decides what comes next."""
    names = [f"c{i}" for i in range(len(DESCRIPTIONS))]
    parents = ["left", "right"]
    tree, items = [], []
    for side, parent in enumerate(parents):
        below = names[side * 4 : side * 4 + 4]
        tree.append((parent, None, 1, parent, 8, 0.5))
        for name in below:
            tree.append((name, parent, 2, DESCRIPTIONS[names.index(name)], 2, 0.125))
            items += [(f"{name}-{i}", [parent, name]) for i in range(2)]
    rows = pa.table(
        [pa.array([row[i] for row in tree], field.type) for i, field in enumerate(schema.TREE)], schema=schema.TREE
    )
    paths = pa.table(
        [pa.array([row[i] for row in items], field.type) for i, field in enumerate(schema.ITEM_PATHS)],
        schema=schema.ITEM_PATHS,
    )
    vectors = {"nodes": np.zeros((10, 2), np.float32), "items": np.zeros((16, 2), np.float32)}
    Clusters(rows, paths, {"interface_level": 2, "source": "file"}, vectors).save(folder / "clusters")
    draw = np.random.default_rng(0)
    mined = []
    for user in range(240):
        split = ("train", "train", "validation", "test")[user % 4]
        for at in range(3):
            a, b = draw.choice(8, 2, replace=False).tolist()
            likely = next(c for c in range(b + 1, b + 9) if c % 8 not in (a, b)) % 8
            free = [c for c in range(8) if c not in (a, b)]
            label = likely if draw.random() < 0.8 else int(draw.choice(free))
            positive = bool(draw.random() < 0.9)
            day = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=24 * user + at)
            held_out = {a, b} == {6, 7}
            mined.append(
                (
                    [names[a], names[b]],
                    names[label],
                    f"u{user:03d}-{at}",
                    day,
                    1.0 if positive else -0.5,
                    positive,
                    split,
                    held_out,
                )
            )
    table = pa.table(
        [pa.array([row[i] for row in mined], field.type) for i, field in enumerate(schema.TRANSITIONS)],
        schema=schema.TRANSITIONS,
    )
    (folder / "transitions").mkdir()
    pq.write_table(table, folder / "transitions" / "transitions.parquet")
    counts = Counter((tuple(row[0]), row[1]) for row in mined if row[5] and row[6] == "train" and not row[7])
    balanced = sorted((next_, -n, context) for (context, next_), n in counts.items())
    columns = [[list(c) for _, _, c in balanced], [x for x, _, _ in balanced], [-n for _, n, _ in balanced]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema.BALANCED, strict=True)]
    pq.write_table(pa.table(arrays, schema=schema.BALANCED), folder / "transitions" / "balanced.parquet")
    kept_back = [[["c6", "c7"], ["c7", "c6"]], [5, 5], [2, 2]]
    arrays = [pa.array(column, field.type) for column, field in zip(kept_back, schema.WITHHELD, strict=True)]
    withheld = pa.table(arrays, schema=schema.WITHHELD)
    pq.write_table(withheld, folder / "transitions" / "held_out.parquet")
    digest = Clusters.load(folder / "clusters").digest
    record = {"clusters_digest": digest, "config": TransitionsConfig().model_dump(), "seed": 0}
    (folder / "transitions" / "transitions.json").write_text(json.dumps(record))
    return folder


def write_base(folder: Path) -> Path:
    """Beside them a random tiny model with a tokenizer."""
    base = folder / "base"
    base.mkdir()
    make_tokenizer().save(str(base / "tokenizer.json"))
    config = tiny_config(1, vocabulary=330)
    raw = tiny_weights(config, 1, sharpness=2.0)
    save_file(raw, base / "model.safetensors", metadata={"format": "pt"})
    (base / "config.json").write_text(json.dumps(config))
    return folder


def tiny_planner_config(folder: Path) -> PlannerConfig:
    """All contexts of the tiny world, read in a moment."""
    return PlannerConfig(
        model=str(folder / "base"), precision="float32", finetune=FinetuneConfig(teacher_penalty=0.2, minutes=5)
    )
