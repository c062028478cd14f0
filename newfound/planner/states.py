"""States of the language model after the prompts of contexts: read once, kept beside the planner, read back by a map.

Everything that the planner says of a context follows from the state after its prompt and the rows of the interests'
tokens. Reading is what costs; with the states at hand, other rows make another table in seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from newfound.compute.distributed import add_up, part, rank, share
from newfound.compute.threads import side_by_side, workers
from newfound.errors import DataError
from newfound.files import new_file
from newfound.planner.decoding.backbone import Backbone, read_prompts
from newfound.planner.prompt import PromptCodec
from newfound.types import Floats, Ints

log = logging.getLogger("newfound.planner")

CONTEXTS_FILE: Final = "states_contexts.npy"
STATES_FILE: Final = "states.npy"
BATCH: Final = 64  # prompts read at once, by a core
ROUND: Final = 2048  # contexts between two looks at the clock


class States:
    """States of some contexts.

    Args:
        contexts: [P, K] cluster indices, no two alike.
        values: float32 [P, dim].
    """

    def __init__(self, contexts: Ints, values: Floats) -> None:
        self.contexts, self.values = contexts, values
        self._row = {tuple(context): row for row, context in enumerate(contexts.tolist())}

    def __len__(self) -> int:
        return len(self.contexts)

    def rows(self, contexts: Sequence[tuple[int, ...]]) -> Ints:
        """[B] the rows of some contexts; -1 where a context was not read."""
        return np.array([self._row.get(context, -1) for context in contexts], dtype=np.int64)

    def joined(self, other: States) -> States:
        """These and, of the others, what is not among them."""
        new = self.rows([tuple(context) for context in other.contexts.tolist()]) < 0
        if not len(self):
            return other
        contexts = np.concatenate([self.contexts, other.contexts[new]])
        return States(contexts, np.concatenate([self.values, other.values[new]]))

    def save(self, folder: Path) -> None:
        """Writes both files."""
        np.save(folder / CONTEXTS_FILE, self.contexts.astype(np.int32), allow_pickle=False)
        np.save(folder / STATES_FILE, self.values, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> States:
        """Maps the files into memory.

        Raises:
            DataError: one is missing or broken.
        """
        try:
            contexts = np.load(folder / CONTEXTS_FILE, allow_pickle=False)
            values = np.load(folder / STATES_FILE, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            problem = f"cannot be read ({' '.join(str(error).split())})"
            raise DataError(str(folder / STATES_FILE), problem, expected="a planner's states") from None
        fits = contexts.ndim == values.ndim == 2 and len(contexts) == len(values) and values.dtype == np.float32
        if not fits or contexts.dtype != np.int32:
            problem = f"shapes {contexts.shape} and {values.shape}"
            raise DataError(str(folder / STATES_FILE), problem, expected="a float32 state a context")
        return cls(contexts.astype(np.int64), values)


def read_states(
    backbone: Backbone, codec: PromptCodec, contexts: Ints, minutes: float | None = None, kept: Path | None = None
) -> States:
    """Reads the prompts of contexts, in their order, as far as the time goes; under torchrun each process its part.

    Args:
        backbone: the language model.
        codec: the prompts.
        contexts: [P, K] cluster indices.
        minutes: after which no further round begins; at least one round is read. None: all are read.
        kept: folder of the first process that keeps every round, and gives those that an earlier call with the same
            arguments kept; None: none is kept. What is there takes no time.
    """
    started, fresh = time.monotonic(), 0
    read, values = [contexts[:0]], [np.zeros((0, backbone.head.shape[1]), dtype=np.float32)]
    for start in range(0, len(contexts), ROUND):
        these = contexts[start : start + ROUND]
        these = these[np.lexsort(these.T[::-1])]  # neighbours share their first interest, which is then read once
        found = _kept(kept, start)
        if found is None:
            spent = time.monotonic() - started
            if minutes is not None and fresh and not _time_left(spent, fresh, len(these), minutes):
                break
            found = _read_round(backbone, codec, these)
            fresh += len(these)
            if kept is not None and rank() == 0:
                _keep(found, kept, start)
        read.append(these)
        values.append(found)
        log.log(
            logging.INFO if minutes is not None else logging.DEBUG,
            "planner: read %d of %d contexts, %.0f s",
            start + len(these),
            len(contexts),
            time.monotonic() - started,
        )
    if before := sum(map(len, read)) - fresh:
        log.info("planner: %d contexts were read before", before)
    return States(np.concatenate(read), np.concatenate(values))


def _time_left(seconds: float, done: int, more: int, minutes: float) -> bool:
    """Whether another round ends in time, going by the rounds so far; the first process decides for all."""
    expected = seconds * (done + more) / done
    fits = torch.tensor([float(rank() == 0 and expected <= minutes * 60)])
    return bool(add_up(fits) > 0)


def _kept(folder: Path | None, start: int) -> Floats | None:
    """A round's states that an earlier call kept, as the first process has them on its disk."""
    if folder is None:
        return None
    file = folder / f"round-{start:09d}.npy"
    there = rank() == 0 and file.is_file()
    _, found = share("", {"states": torch.from_numpy(np.load(file, allow_pickle=False))} if there else {})
    return found["states"].numpy() if found else None


def _keep(states: Floats, folder: Path, start: int) -> None:
    with new_file(folder / f"round-{start:09d}.npy") as file, file.open("wb") as stream:
        np.save(stream, states, allow_pickle=False)


def _read_round(backbone: Backbone, codec: PromptCodec, contexts: Ints) -> Floats:
    mine = part(len(contexts))
    states = torch.zeros(len(contexts), backbone.head.shape[1])
    prompts = [codec.segments(tuple(context)) for context in contexts[mine].tolist()]
    size = BATCH if backbone.device.type == "cpu" else BATCH * 8
    blocks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    if backbone.device.type == "cpu" and workers() > 1:
        read = side_by_side([lambda block=block: read_prompts(backbone, block) for block in blocks])  # type: ignore[misc]
    else:
        read = [read_prompts(backbone, block) for block in blocks]
    if read:
        states[mine] = torch.cat(read)
    return add_up(states).numpy()
