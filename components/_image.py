"""The one image that every component runs in; locally it only names the environment that is there already."""

from typing import Final

IMAGE: Final = "newfound-train:0.1.0"
