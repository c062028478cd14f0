"""Settings: strict, frozen models, read from YAML and checked with errors that name the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newfound.errors import ConfigError
from newfound.files import read_yaml

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class Settings(BaseModel):
    """Base of every configuration model: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Settings)


def load_settings(model: type[Model], path: str | Path | None) -> Model:
    """Reads and checks a YAML file of a service's settings; what it does not give, None all, has its default.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or a key is unknown or its value does not fit.
    """
    return model() if path is None else checked(model, read_yaml(path), str(path))


def checked(model: type[Model], raw: object, source: str) -> Model:
    """A mapping of settings as a model; `source` names where it came from in errors.

    Raises:
        ConfigError: a key is unknown or its value does not fit.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{source}: unknown key {key!r}{more}") from error
        raise ConfigError(f"{source}: key {key!r}: {first['msg']}{more}") from error
