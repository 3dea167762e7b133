"""Names of classes that a detector gives by number."""

import ast
import re
from pathlib import Path

from exchange import ExchangeError
from exchange.formats.marks import RowError, read_text, text_of

NAMES_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "names.txt")
"""Where the names of YOLO's classes lie, by the custom of its tools."""

_MOST = 100_000
_LIST_KEY = re.compile(r"names\s*:\s*(.*)")
_ITEM = re.compile(r"-\s*(.+)")
_NUMBERED = re.compile(r"['\"]?(\d{1,6})['\"]?\s*:\s*(.+)")


def find_names(folder: Path) -> Path | None:
    """Return the file of names in a folder, or in the one above it; None where there is none."""
    for place in (folder, folder.parent):
        for name in NAMES_FILES:
            if (place / name).is_file():
                return place / name
    return None


def read_names(path: Path) -> dict[int, str]:
    """Return the names of classes by their numbers.

    Args:
        path: A text file with one name a line, numbered from 0; or a .yaml file whose key `names` holds a list
            ([a, b], or lines of `- a`) or numbered names ({0: a}, or lines of `0: a`). Of YAML no more is understood.

    Raises:
        ExchangeError: It can't be read, or holds no names.
    """
    lines = read_text(path).splitlines()
    given = _yaml_names(path, lines) if path.suffix.lower() in (".yaml", ".yml") else dict(enumerate(lines))
    names: dict[int, str] = {}
    for number, raw in given.items():
        try:
            name = text_of(raw, "a name")
        except RowError as error:
            raise ExchangeError(path, str(error), "write each name on one line") from error
        if name is not None:
            names[number] = name
    if not names or len(names) > _MOST:
        raise ExchangeError(path, f"holds {len(names)} names of classes", "write one name a line")
    return names


def _yaml_names(path: Path, lines: list[str]) -> dict[int, object]:
    for position, line in enumerate(lines):
        match = _LIST_KEY.match(line)
        if match is None:
            continue
        inline = _without_comment(match.group(1))
        return _flow_names(path, inline) if inline else _block_names(lines[position + 1 :])
    raise ExchangeError(path, "has no key `names`", "name the classes in a text file, one a line")


def _block_names(lines: list[str]) -> dict[int, object]:
    found: dict[int, object] = {}
    for line in lines:
        text = _without_comment(line)
        if not text:
            continue
        item, numbered = _ITEM.fullmatch(text), _NUMBERED.fullmatch(text)
        if item is not None:
            found[len(found)] = _unquoted(item.group(1))
        elif numbered is not None:
            found[int(numbered.group(1))] = _unquoted(numbered.group(2))
        else:
            break  # the next key
    return found


def _flow_names(path: Path, text: str) -> dict[int, object]:
    opening, closing = text[0], text[-1]
    if (opening, closing) not in (("[", "]"), ("{", "}")):
        raise ExchangeError(path, "its `names` are no list on one line or one a line", "write them one a line")
    try:
        value = ast.literal_eval(text)  # quoted names may contain commas
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = [part.strip() for part in text[1:-1].split(",") if part.strip()]
        if opening == "{":
            pairs = [part.partition(":") for part in value]
            value = {int(key): _unquoted(name) for key, _, name in pairs if key.strip().isdigit()}
        else:
            value = [_unquoted(part) for part in value]
    if isinstance(value, dict):
        return {key: name for key, name in value.items() if isinstance(key, int)}
    return dict(enumerate(value))


def _without_comment(line: str) -> str:
    return line.partition(" #")[0].strip() if not line.lstrip().startswith("#") else ""


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
