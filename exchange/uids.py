"""Unique identifiers of what is written: the same content always gets the same one, under a root of one's own."""

import hashlib
import re
import uuid

from exchange import ExchangeError

UUID_ROOT = "2.25"
"""The root below which a UUID, written as a whole number, is a UID (PS3.5 B.2): for whoever has no root."""

LONGEST_UID = 64
"""Characters (PS3.5 9.1)."""

_FEWEST_DIGITS = 24  # that are left below a root: enough of them that no two contents will ever share one
_ROOT = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_SEPARATOR = b"\0"


def check_uid_root(root: str) -> None:
    """Refuse what is no root of UIDs (PS3.5 9.1): whole numbers without leading zeros, joined by points.

    Raises:
        ExchangeError: It is none, or too long to leave room below it.
    """
    if _ROOT.fullmatch(root) is None:
        raise ExchangeError(
            f"UID root {root[:80]!r}",
            "is none",
            f"give whole numbers without leading zeros, joined by points, or {UUID_ROOT}",
        )
    longest = LONGEST_UID - _FEWEST_DIGITS - 1
    if len(root) > longest:
        raise ExchangeError(
            f"UID root {root[:80]!r}", f"has {len(root)} characters", f"give a root of {longest} at most"
        )


def derived_uid(root: str, *parts: str) -> str:
    """Return the UID of some content: the same parts give the same one, below the same root.

    Below 2.25 it is a UUID of version 5's form, as PS3.5 B.2 asks; below another root a number of as many digits as
    there is room for. Both come from the SHA-256 of the parts, in their order.

    Args:
        root: See `check_uid_root`.
        parts: What is to be named.

    Raises:
        ExchangeError: The root is none.

    >>> derived_uid("1.2.3", "a") == derived_uid("1.2.3", "a") != derived_uid("1.2.3", "b")
    True
    """
    check_uid_root(root)
    # The length before each part: ("ab", "c") is not ("a", "bc").
    told = [part.encode("utf-8", "surrogatepass") for part in parts]
    digest = hashlib.sha256(_SEPARATOR.join(b"%d:%b" % (len(part), part) for part in told)).digest()
    if root == UUID_ROOT:
        return f"{root}.{uuid.UUID(bytes=digest[:16], version=5).int}"
    digits = LONGEST_UID - len(root) - 1
    return f"{root}.{int.from_bytes(digest) % 10 ** min(digits, 39)}"


def is_uid(text: str) -> bool:
    """Return whether a text can stand where a UID must: 0, 1 or 2, then numbers after points, 64 characters at most.

    Leading zeros, which the standard forbids, are in use; what refers to such an image must name it as it is.

    >>> is_uid("1.2.840.10008"), is_uid("1.2.x"), is_uid("4.1"), is_uid("")
    (True, False, False, False)
    """
    return len(text) <= LONGEST_UID and re.fullmatch(r"[0-2](\.[0-9]+)+", text) is not None
