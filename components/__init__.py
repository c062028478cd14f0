"""KFP components, one file each: import, call the library, log what it measured."""

from components._image import IMAGE
from components._step import ERROR_LOGGER, FEATURES_FOLDER, LOCAL_RUN

__all__ = ["ERROR_LOGGER", "FEATURES_FOLDER", "IMAGE", "LOCAL_RUN"]
