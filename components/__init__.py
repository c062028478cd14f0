"""KFP components, one file each: import, call the library, log what it measured."""

from components._image import IMAGE
from components._step import CPU_SECONDS, EVENT, LOCAL_RUN, PEAK_MEGABYTES, WALL_SECONDS

__all__ = ["CPU_SECONDS", "EVENT", "IMAGE", "LOCAL_RUN", "PEAK_MEGABYTES", "WALL_SECONDS"]
