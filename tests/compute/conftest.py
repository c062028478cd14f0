"""The small slice of MovieLens that the ranker's tests train on."""

from tests.ranker.conftest import world  # noqa: F401, a fixture
