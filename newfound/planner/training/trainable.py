"""Trainable models: which tensors learn, the master weights that the optimiser updates, and how they are saved.

Matrix products run in the model's precision; master weights are float32 (mixed precision: Micikevicius et al. 2018,
arXiv 1710.03740). Embeddings stay as they are: they are a fifth of the small model's weights, and descriptions are made
of ordinary words. Of the head, the rows of the tokens that answers are made of learn: fitted to the states first, so
that the body need not bend for what a head can say (a linear probe first, then the whole: Kumar et al. 2022, arXiv
2202.10054).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from newfound.config import FinetuneConfig
from newfound.planner.base_model import copy_surroundings
from newfound.planner.decoding.backbone import Backbone, LeanBackbone, TransformersBackbone
from newfound.planner.decoding.llama import Llama


class TrainableModel(Protocol):
    """A backbone that learns."""

    backbone: Backbone
    trained: dict[str, Tensor]
    """leaves that take gradients, by name"""
    rows: Tensor | None
    """[R, dim] the head's rows of the tokens that answers are made of, if they are trained; also among `trained`"""

    def head(self) -> Tensor:
        """[V, dim]."""

    def update_backbone(self) -> None:
        """Writes what was learned so far to where the backbone reads it."""

    def save(self, base: Path, out: Path) -> None:
        """Writes a Hugging Face folder with everything merged, in bfloat16; `base` is where the rest comes from."""


class LeanTrainable:
    """The lean decoder: its matrices, or low-rank additions to them (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self, model: Llama, config: FinetuneConfig, seed: int, tokens: Tensor) -> None:
        self.model = model
        self.tokens = tokens
        self.rows: Tensor | None = None
        self.backbone: Backbone = LeanBackbone(model)
        names = [f"{i}.{part}" for i in range(config.frozen_layers, model.shape.layers) for part in model.layers[i]]
        if config.method == "full":
            self.trained = {name: model.weights[name] for name in names}
        else:
            draw = torch.Generator("cpu").manual_seed(seed)  # the same on every device
            self.trained = {}
            for name in names:
                height, width = model.weights[name].shape
                down = torch.randn(config.lora_rank, width, generator=draw, device="cpu") / math.sqrt(width)
                up = torch.zeros(height, config.lora_rank)
                model.adapters[name] = (down.to(up.device, model.dtype), up.to(model.dtype))
                self.trained[f"{name}.a"], self.trained[f"{name}.b"] = model.adapters[name]
        if config.head_rate:
            self.rows = self.trained["head"] = model.weights["head"][tokens].clone()
            if model.weights["head"] is model.weights["embedding"]:
                model.weights["head"] = model.weights["head"].clone()
        for tensor in self.trained.values():
            tensor.requires_grad_(True)

    def head(self) -> Tensor:
        return self.model.weights["head"]

    @torch.no_grad()
    def update_backbone(self) -> None:
        if self.rows is not None:
            self.model.weights["head"][self.tokens] = self.rows

    def save(self, base: Path, out: Path) -> None:
        self.update_backbone()
        with torch.no_grad():
            plain = self.model.unfused(self._merged())
        save_file(
            {k: v.to("cpu", torch.bfloat16) for k, v in plain.items()}, out / "model.safetensors", {"format": "pt"}
        )
        tied = self.model.weights["head"] is self.model.weights["embedding"]
        copy_surroundings(base, out, {"tie_word_embeddings": tied})

    def _merged(self) -> dict[str, Tensor]:
        weights = dict(self.model.weights)
        for name, (down, up) in self.model.adapters.items():
            weights[name] = (weights[name].float() + up.float() @ down.float()).to(self.model.dtype)
        return weights


class TransformersTrainable:
    """Any other architecture, by transformers and peft."""

    def __init__(self, backbone: TransformersBackbone, config: FinetuneConfig) -> None:
        self.backbone: Backbone = backbone
        self.rows: Tensor | None = None
        self.module = backbone.module
        self.module.requires_grad_(False)
        if config.method == "lora":
            from peft import LoraConfig, get_peft_model

            adapted = get_peft_model(self.module, LoraConfig(r=config.lora_rank, target_modules="all-linear"))
            backbone.module = self.module = adapted
            self.trained = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
        else:
            fixed = {id(m.weight) for m in (self.module.get_input_embeddings(), self.module.get_output_embeddings())}
            self.trained = {n: p for n, p in self.module.named_parameters() if id(p) not in fixed and p.ndim == 2}
        for parameter in self.trained.values():
            parameter.requires_grad_(True)

    def head(self) -> Tensor:
        weight: Tensor = self.module.get_output_embeddings().weight
        return weight

    def update_backbone(self) -> None:
        return

    def save(self, base: Path, out: Path) -> None:
        import copy

        module = self.module
        if hasattr(module, "merge_and_unload"):
            module = copy.deepcopy(module).merge_and_unload()
        copy_surroundings(base, out)
        module.to(torch.bfloat16).save_pretrained(out)


class MasterWeights:
    """float32 copies that the optimiser updates, written back to the trained tensors after every step."""

    def __init__(self, trained: dict[str, Tensor]) -> None:
        self.trained = trained
        self.values = {
            name: tensor if tensor.dtype == torch.float32 else tensor.detach().float()
            for name, tensor in trained.items()
        }

    def take_gradients(self) -> None:
        """Moves the tensors' gradients to the master weights."""
        for name, tensor in self.trained.items():
            master = self.values[name]
            if master is not tensor:
                master.grad = None if tensor.grad is None else tensor.grad.float()
                tensor.grad = None

    @torch.no_grad()
    def write_back(self) -> None:
        """Copies the master weights into the tensors."""
        for name, tensor in self.trained.items():
            if self.values[name] is not tensor:
                tensor.copy_(self.values[name])
