"""A course that was interrupted goes on at its last saved step, and ends as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newfound.files import new_folder, recover

STATE = "state.json"
TENSORS = "state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Progress:
    """How far a course has come, beside its tensors."""

    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    record: float | None = None
    tokens: int = 0
    unshared: int = 0
    training: float = 0.0
    draws: dict[str, Any] = field(default_factory=dict)


def identity(*parts: Any) -> str:
    """A digest of what a course depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def save_progress(
    folder: Path,
    made_of: str,
    progress: Progress,
    masters: dict[str, Tensor],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Writes the state in the place of the last one."""
    from safetensors.torch import save_file

    tensors = {f"master.{name}": value.detach().cpu() for name, value in masters.items()}
    tensors |= {f"best.{name}": value.cpu() for name, value in best.items()}
    for name, value in masters.items():
        state = optimizer.state[value]
        tensors |= {f"{moment}.{name}": state[moment].cpu() for moment in MOMENTS}
    with new_folder(folder, STATE) as part:
        save_file(tensors, part / TENSORS)
        (part / STATE).write_text(json.dumps({"made_of": made_of, **vars(progress)}), encoding="utf-8")


def saved_step(folder: Path, made_of: str) -> int:
    """The step after which a state of this very course was saved; 0 where there is none."""
    record = _read(folder, made_of)
    return 0 if record is None else int(record["step"])


def load_progress(
    folder: Path,
    made_of: str,
    masters: dict[str, Tensor],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> Progress | None:
    """Brings the tensors back and tells how far the course was; None where there is no state of this very course."""
    from safetensors.torch import load_file

    record = _read(folder, made_of)
    if record is None:
        return None
    tensors = load_file(folder / TENSORS)
    with torch.no_grad():
        for name, value in masters.items():
            value.copy_(tensors[f"master.{name}"])
            optimizer.state[value] = {moment: tensors[f"{moment}.{name}"].to(value.device) for moment in MOMENTS}
            if f"best.{name}" in tensors:
                best[name] = tensors[f"best.{name}"].to(value.device)
    return Progress(**record)


def _read(folder: Path, made_of: str) -> dict[str, Any] | None:
    recover(folder)
    try:
        record: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.pop("made_of") == made_of else None
