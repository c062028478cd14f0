"""Saved state of a training run, from which an interrupted one goes on and ends as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newfound.files import new_folder, recover

STATE = "state.json"
TENSORS = "state.safetensors"
ADAM = ("exp_avg", "exp_avg_sq", "step")  # the optimiser's state of each tensor


@dataclass
class Progress:
    """How far a run has come, beside its tensors."""

    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # since the curve's last point
    best: float | None = None  # measure of the best checkpoint so far
    tokens: int = 0  # that were read
    unshared_tokens: int = 0  # that would have been read one prompt and answer at a time
    training_seconds: float = 0.0
    rng: dict[str, Any] = field(default_factory=dict)


def identity(*parts: Any) -> str:
    """A digest of what a run depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def save_progress(
    folder: Path,
    inputs: str,
    progress: Progress,
    masters: dict[str, Tensor],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Writes the state in the place of the last one.

    Args:
        inputs: digest of what the run depends on.
        masters: master weights by name.
        best: weights of the best checkpoint so far by name.
    """
    from safetensors.torch import save_file

    tensors = {f"master.{name}": value.detach().cpu() for name, value in masters.items()}
    tensors |= {f"best.{name}": value.cpu() for name, value in best.items()}
    for name, value in masters.items():
        state = optimizer.state[value]
        tensors |= {f"{part}.{name}": state[part].cpu() for part in ADAM}
    with new_folder(folder, STATE) as new:
        save_file(tensors, new / TENSORS)
        (new / STATE).write_text(json.dumps({"inputs": inputs, **vars(progress)}), encoding="utf-8")


def saved_step(folder: Path, inputs: str) -> int:
    """The step after which a state of this very run was saved; 0 where there is none."""
    progress = _read(folder, inputs)
    return 0 if progress is None else progress.step


def load_progress(
    folder: Path,
    inputs: str,
    masters: dict[str, Tensor],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> Progress | None:
    """Brings the tensors back and tells how far the run was; None where there is no state of this very run."""
    from safetensors.torch import load_file

    progress = _read(folder, inputs)
    if progress is None:
        return None
    tensors = load_file(folder / TENSORS)
    with torch.no_grad():
        for name, value in masters.items():
            value.copy_(tensors[f"master.{name}"])
            optimizer.state[value] = {part: tensors[f"{part}.{name}"].to(value.device) for part in ADAM}
            if f"best.{name}" in tensors:
                best[name] = tensors[f"best.{name}"].to(value.device)
    return progress


def _read(folder: Path, inputs: str) -> Progress | None:
    recover(folder)
    try:
        record: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if record.pop("inputs", None) != inputs or record.keys() != {one.name for one in fields(Progress)}:
        return None
    return Progress(**record)
