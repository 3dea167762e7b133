"""Failures that pass by themselves, and meeting them again after a wait."""

import time
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from exchange import ExchangeError
from exchange.pacs.config import Retries

Result = TypeVar("Result")


class TransientError(ExchangeError):
    """A failure that may pass: a server that is down, busy or slow, a connection that was cut."""


class DeniedError(ExchangeError):
    """The archive does not let us in at all: every further request would fail likewise, or lock our account."""


class Patience:
    """Says when a batch is to be given up: at once where we are not let in, else after several that failed in a row."""

    _ENOUGH = 3

    def __init__(self) -> None:
        self._in_a_row = 0

    def succeeded(self) -> None:
        """Note that the archive answers."""
        self._in_a_row = 0

    def is_over(self, error: ExchangeError) -> bool:
        """Note a failure, and tell whether the rest is not worth trying."""
        self._in_a_row = self._in_a_row + 1 if isinstance(error, TransientError) else 0
        return isinstance(error, DeniedError) or self._in_a_row >= self._ENOUGH


def library(name: str) -> ModuleType:
    """Import a library of the extra `exchange`.

    Raises:
        ExchangeError: It is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ExchangeError(package, "is not installed", "pip install 'mammoseek[exchange]'") from error


def with_retries(
    retries: Retries, action: Callable[[], Result], wait: Callable[[float], object] = time.sleep
) -> Result:
    """Return what an action returns, trying again after each transient failure.

    Args:
        retries: How often, and how long to wait in between.
        action: What is tried; all that it raises but `TransientError` ends the trying.
        wait: Waits for so many seconds.

    Raises:
        ExchangeError: It failed for good, or too often.
    """
    for failures in range(1, retries.count + 1):
        try:
            return action()
        except TransientError:
            wait(retries.wait_s(failures))
    try:
        return action()
    except TransientError as error:
        tries = f", {retries.count + 1} times" if retries.count else ""
        raise TransientError(error.subject, f"{error.cause}{tries}", error.remedy) from error
