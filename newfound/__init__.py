"""newfound: opens interests that a person has never had, and proves that they like them."""

__version__ = "0.1.0"
