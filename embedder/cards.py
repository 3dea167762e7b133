"""How a model's card is written, whatever it is a model of: as JSON with a checksum of all the rest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def card_checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that a card's file holds besides it: a card that was changed by hand is refused.

    A model's digest does not cover what it was trained on and how it was measured; this does.
    """
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def card_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a card as it is written, with its checksum."""
    checked = {**content, "checksum": card_checksum(content)}
    return (json.dumps(checked, indent=1, sort_keys=True) + "\n").encode()
