"""The settings of every step: its sections of the configuration, digests of its code, packages and files.

kfp's cache key has a step's own source and its arguments, but neither the library behind it nor the content of files
that are named by path. Both enter as digests in the step's settings, so that a cached result is never a stale one,
and a change reruns only the steps that it concerns.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from newfound.config import TrainingConfig
from pipelines.dependencies import ROOT, code_digest, content_digest

log = logging.getLogger("newfound.settings")
COMMON: Final = ("seed", "threads")


@dataclass(frozen=True)
class Step:
    """A component and what it reads.

    Attributes:
        component: its module in `components`.
        sections: of TrainingConfig.
        files: dotted keys of the configuration that name files or folders, whose content counts.
        folders: of this repository, which it reads beside the code that it imports.
        refit: whether it is the refit's, whose configuration differs.
    """

    component: str
    sections: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    refit: bool = False


# Sections that training depends on; `refresh` is the refresh pipeline's alone.
SECTIONS: Final = tuple(name for name in TrainingConfig.model_fields if name not in (*COMMON, "refresh"))
# Of the steps that work on tables: where those run.
TABLES: Final = ("engine", "spark")
DATA_FILES: Final = ("data.folder", "data.interactions", "data.items")
MODEL_FILES: Final = ("clusters.file", "clusters.text_model", "planner.model")


def settings_of(steps: Mapping[str, Step], config: TrainingConfig, image: str | None = None) -> dict[str, str]:
    """For every step a JSON string with all that it depends on.

    Args:
        steps: by the pipeline's parameter.
        config: the configuration.
        image: what the steps run in, on a cluster; the code there is the image's, whatever is here.
    """
    return {name: step_settings(step, config, image) for name, step in steps.items()}


def step_settings(step: Step, config: TrainingConfig, image: str | None = None, more: object = None) -> str:
    """One step's settings: `config` for the step, `code`, `files` and `more` for the caches."""
    read = refitting(config) if step.refit else config
    values = read.model_dump(mode="json", include={*COMMON, *step.sections})
    document = {
        "config": values,
        "code": image or code_digest(ROOT / "components" / f"{step.component}.py", step.folders),
        "files": {key: digest for key in step.files if (digest := _digest_of_setting(values, key))},
        **({} if more is None else {"more": more}),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def refitting(config: TrainingConfig) -> TrainingConfig:
    """The fit on all data: everybody's transitions, none withheld; a planner that goes on; a table of its own size."""
    finetune = {"minutes": config.refit.planner_minutes}
    planner = config.planner.model_copy(update={"finetune": config.planner.finetune.model_copy(update=finetune)})
    transitions = config.transitions.model_copy(update={"learn_from": "all", "held_out_pairs": 0.0})
    table = config.table.model_copy(update={"contexts_at_most": config.refit.table_contexts_at_most})
    return config.model_copy(update={"planner": planner, "transitions": transitions, "table": table})


def _digest_of_setting(values: dict[str, Any], key: str) -> str | None:
    section, name = key.split(".")
    named = values[section][name]
    if not named:
        return None
    if "://" in named:  # a digest that stands in the configuration stands for what is there
        return None if values[section].get(f"{name}_sha256") else _state_of(named)
    # What is not here is the image's, or a mistake, which the step will name.
    return content_digest(Path(named)) if Path(named).exists() else None


def _state_of(url: str) -> str:
    """An object store's word on a file's content; where it has none, no cached result may stand for it."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        return str(fs.checksum(path))
    except Exception as error:  # each store's client has its own errors
        log.warning("%s: not to be looked at from here (%s); the step that reads it runs anew", url, error)
        return f"unknown, {uuid.uuid4().hex}"
