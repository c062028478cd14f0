"""The planner as a Hugging Face folder: the base model with a larger vocabulary and a head of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newfound.planner.base_model import copy_surroundings
from newfound.planner.decoding.backbone import Backbone, TransformersBackbone

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@torch.no_grad()
def extended(rows: Tensor, first: int, new: Tensor) -> Tensor:
    """[V', dim] rows with others from the place `first` on; the vocabulary grows where they reach beyond it."""
    size = max(len(rows), first + len(new))
    out = torch.cat([rows, rows.new_zeros(size - len(rows), rows.shape[1])])
    out[first : first + len(new)] = new.to(rows.dtype)
    return out


def save_model(base: Path, out: Path, backbone: Backbone, inputs: Tensor, head: Tensor, first: int) -> None:
    """Writes weights and configuration; what neither embeds nor answers is the base model's, bit for bit.

    Args:
        base: the base model's folder.
        out: the new folder.
        backbone: the base model as it was loaded.
        inputs: [N, dim] embeddings of the interests' tokens.
        head: [V', dim] the whole head, written in float32: rows of interests are too fine for bfloat16.
        first: id of the first interest's token.
    """
    if isinstance(backbone, TransformersBackbone):
        changes = _save_by_transformers(backbone, out, inputs, head, first)
    else:
        changes = _save_llama(base, out, inputs, head, first)
    copy_surroundings(base, out, {**changes, "tie_word_embeddings": False})


def _save_llama(base: Path, out: Path, inputs: Tensor, head: Tensor, first: int) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    files, size = sorted(base.glob("model*.safetensors")), 0
    where: dict[str, str] = {}
    for file in files:
        tensors = load_file(file)
        if EMBEDDING in tensors:
            tensors[EMBEDDING] = extended(tensors[EMBEDDING], first, inputs)
            size = len(tensors[EMBEDDING])
            tensors[HEAD] = head.float().contiguous()
        elif HEAD in tensors:
            del tensors[HEAD]
        where |= {name: file.name for name in tensors}
        save_file(tensors, out / file.name, {"format": "pt"})
    if len(files) > 1:
        total = sum(file.stat().st_size for file in out.glob("model*.safetensors"))
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return {"vocab_size": size}


def _save_by_transformers(
    backbone: TransformersBackbone, out: Path, inputs: Tensor, head: Tensor, first: int
) -> dict[str, Any]:
    module = backbone.module
    rows = extended(module.get_input_embeddings().weight.detach(), first, inputs)
    module.resize_token_embeddings(len(rows), mean_resizing=False)
    module.config.tie_word_embeddings = False
    module.get_input_embeddings().weight = torch.nn.Parameter(rows)
    module.get_output_embeddings().weight = torch.nn.Parameter(head.to(rows.device, torch.float32))
    module.save_pretrained(out)
    return {"vocab_size": len(rows)}
