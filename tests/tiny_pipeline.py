"""The whole pipeline, tiny: a random language model, a small configuration, folders for runs and releases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from newfound.config import DataConfig

ROOT = Path(__file__).parents[1]


def tiny_language_model(folder: Path) -> None:
    """A random two-layer Llama with a byte-level tokenizer, as a Hugging Face folder."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    dim, heads, hidden, layers, size = 48, 2, 96, 2, len(vocabulary)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": layers,
        "hidden_size": dim,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": dim // heads,
        "intermediate_size": hidden,
        "vocab_size": size,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    draw = torch.Generator().manual_seed(0)
    shapes = {"embed_tokens": (size, dim)}
    for layer in range(layers):
        shapes |= {f"layers.{layer}.self_attn.{part}_proj": (dim, dim) for part in "qkvo"}
        shapes |= {f"layers.{layer}.mlp.{part}_proj": (hidden, dim) for part in ("gate", "up")}
        shapes[f"layers.{layer}.mlp.down_proj"] = (dim, hidden)
    weights = {f"model.{name}.weight": torch.randn(*shape, generator=draw) * 0.1 for name, shape in shapes.items()}
    norms = [f"layers.{at}.{name}_layernorm" for at in range(layers) for name in ("input", "post_attention")]
    weights |= {f"model.{name}.weight": torch.ones(dim) for name in (*norms, "norm")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class TinyPipeline:
    """A folder with data, configuration, runs and releases."""

    def __init__(self, folder: Path, source: DataConfig) -> None:
        self.folder, self.source = folder, source
        self.runs, self.releases = folder / "runs", folder / "releases"
        self.config = {
            "data": {"rating_scale": [1, 5], "positive_at": 0.75, "min_item_events": 8},
            "clusters": {"interface_size": 16, "coarse_sizes": [4]},
            "planner": {
                "model": str(folder / "model"),
                "precision": "float32",
                "match_rate_contexts": 8,
            },
            "table": {"precision": "float32", "shards": 2, "second_build": 4},
            "ranker": {"dim": 16, "blocks": 1, "epochs": 2, "max_length": 50},
            "tuning": {"trials": 2, "epochs": 1, "space": {"dim": [8, 16]}},
            "evaluation": {
                "bootstrap": 50,
                "contexts_at_most": 150,
                "validation_contexts": 20,
                "users_at_most": 100,
                "liked_items": 2,
                "sequence_epochs": 1,
                "min_match_rate": 0.0,
                "min_recall_over_chance": 0.0,
            },
        }

    def run(self, *options: str, **evaluation: float) -> subprocess.CompletedProcess[str]:
        """`python -m pipelines local training` on the slice."""
        config = {**self.config, "evaluation": {**self.config["evaluation"], **evaluation}}  # type: ignore[dict-item]
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "pipelines", "local", "training", "--config", str(self.folder / "config.yaml")]
        command += ["--interactions", str(self.source.interactions), "--items", str(self.source.items)]
        command += ["--runs", str(self.runs), "--releases", str(self.releases), *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})
