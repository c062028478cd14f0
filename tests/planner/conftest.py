"""Random tiny models: real architecture, real decoding, no training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import save_file

from newfound.planner.backbone import LeanBackbone
from newfound.planner.model import Llama, Shape, fuse

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


@pytest.fixture(scope="session")
def tiny_backbone() -> Callable[..., LeanBackbone]:
    """Builds a random model in memory."""

    def build(seed: int, sharpness: float = 3.0, dtype: torch.dtype = torch.float32) -> LeanBackbone:
        config = tiny_config(seed)
        shape = Shape.from_config(config)
        assert shape is not None
        return LeanBackbone(Llama(shape, fuse(shape, tiny_weights(config, seed, sharpness), dtype)))

    return build


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a random model as a Hugging Face folder, without a tokenizer."""

    def build(seed: int, **changes: object) -> Path:
        folder = tmp_path_factory.mktemp("tiny")
        config = tiny_config(seed)
        save_file(tiny_weights(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    return build
