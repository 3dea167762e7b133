"""What is kept in memory between requests: how many bytes of it, and what goes first."""

from collections import OrderedDict
from typing import Any, Protocol

from index.memory import available_memory

_FEWEST_BYTES, _MOST_BYTES = 256 << 20, 2 << 30


class Sized(Protocol):
    """What is kept within a number of bytes."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""


def default_budget() -> int:
    """Return the bytes that images may take: an eighth of what is free, 256 MiB at least and 2 GiB at most."""
    return int(min(_MOST_BYTES, max(_FEWEST_BYTES, available_memory() // 8)))


def keep_within(kept: OrderedDict[Any, Any], most_bytes: int) -> None:
    """Let go of what was used longest ago, until the rest fits; the one used last stays however large it is.

    Args:
        kept: Values of a size (`Sized`), the one used last at the end.
        most_bytes: Bytes that they may take together.
    """
    taken = sum(one.nbytes for one in kept.values())
    while taken > most_bytes and len(kept) > 1:
        taken -= kept.popitem(last=False)[1].nbytes
