"""KFP components, one file each: import, call the library, log what it measured."""

from components._image import IMAGE
from components._step import ERROR_LOGGER, LOCAL_RUN

__all__ = ["ERROR_LOGGER", "IMAGE", "LOCAL_RUN"]
