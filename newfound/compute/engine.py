"""The engine of the table steps that run in this context; `newfound.datasets.engine` opens tables on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Final

from newfound.config import TrainingConfig


class Engine:
    """One engine, and what stays open on it for as long as its context lasts.

    Args:
        config: whose `engine` and `spark` it is.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.name, self.spark = config.engine, config.spark
        self._stack, self._opened = ExitStack(), None

    def once(self, start: Callable[[], AbstractContextManager[Any]]) -> Any:
        """Opens what `start` makes when first asked, and answers the same one again later."""
        if self._opened is None:
            self._opened = self._stack.enter_context(start())
        return self._opened

    def close(self) -> None:
        """Closes what was opened."""
        self._stack.close()


_DEFAULT: Final = Engine(TrainingConfig())
_current: Final[ContextVar[Engine | None]] = ContextVar("engine", default=None)


def current() -> Engine:
    """The innermost context's engine; outside of any, DuckDB."""
    return _current.get() or _DEFAULT


@contextmanager
def running_on(config: TrainingConfig) -> Iterator[None]:
    """Runs every table that is opened in this context on `config.engine`.

    Spark starts with the first table, and stops with the context.
    """
    engine = Engine(config)
    token = _current.set(engine)
    try:
        yield
    finally:
        _current.reset(token)
        engine.close()
