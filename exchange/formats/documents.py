"""JSON documents: read with bounds, so that a hostile one is refused and not a crash."""

import json
from pathlib import Path
from typing import Any

from exchange import ExchangeError
from exchange.formats.marks import read_text


def read_document(path: Path) -> Any:
    """Return what a JSON file holds; numbers such as NaN are read, and refused by whoever needs a number.

    Raises:
        ExchangeError: It can't be read, or is no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ExchangeError(path, "is nested deeper than any detection file", "write it again") from error
    except ValueError as error:
        raise ExchangeError(path, f"is no JSON ({str(error)[:200]})", "write it again") from error
