"""Monitoring's configuration file and secrets; both are read in `main()` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError

from newfound.config import MonitoringConfig
from newfound.errors import ConfigError

USER_KEY: Final = "NEWFOUND_USER_KEY"
STORE: Final = "NEWFOUND_STORE"


def load_monitoring(path: Path | None) -> MonitoringConfig:
    """Reads and checks a YAML configuration; None means the defaults.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or a key is unknown or its value does not fit.
    """
    if path is None:
        return MonitoringConfig()
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return MonitoringConfig.model_validate(raw or {})
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise ConfigError(f"{path}: key {key!r}: {first['msg']}") from error


def secret_key(environment: Mapping[str, str]) -> bytes:
    """The key of the users' hashes.

    Raises:
        ConfigError: it is absent or too short to be one.
    """
    key = environment.get(USER_KEY, "")
    if len(key) < 16:
        raise ConfigError(f"{USER_KEY}: expected a secret of at least 16 characters, the same as the explorer's")
    return key.encode()
