"""Fuzz target: a base model as a GGUF file."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Final

import gguf
import numpy as np

from newfound.errors import DataError
from newfound.planner.base_model import unpack

SHARE: Final = 0.1


def _model() -> bytes:
    """A Llama in which nearly everything is missing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(str(file), "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_head_count(2)
        writer.add_head_count_kv(1)
        writer.add_token_list(["a", "b"])
        writer.add_tensor("token_embd.weight", np.zeros((2, 8), dtype=np.float32))
        writer.add_tensor("blk.0.attn_q.weight", np.zeros((8, 8), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file.read_bytes()


def _endless() -> bytes:
    """One field: an array that claims 2^60 numbers."""
    return b"GGUF" + struct.pack("<IQQQcIIQ", 3, 0, 1, 1, b"a", 9, 6, 1 << 60) + bytes(64)


SEEDS: Final = [_model(), b"", b"GGUF", b"GGUF" + bytes(64), _endless()]


class Target:
    """A file that is no whole model is refused by name, and nothing is left behind."""

    def __init__(self) -> None:
        place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="newfound-fuzz-", dir=place)
        self.file = Path(self._folder.name) / "model.gguf"

    def __call__(self, data: bytes) -> None:
        self.file.write_bytes(data)
        try:
            unpack(self.file, self.file.with_name("base"))
        except DataError as error:
            assert str(self.file) in str(error)
            assert [path.name for path in self.file.parent.iterdir()] == [self.file.name]
            return
        raise AssertionError("a model of nothing was unpacked")
