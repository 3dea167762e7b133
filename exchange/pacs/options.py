"""Nested options of a TOML file as frozen dataclasses: types checked, unknown names refused with the known ones."""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from exchange import ExchangeError

_SHOWN = 80  # characters of a name or a value in an error


def filled(kind: Any, content: Mapping[str, Any], subject: str, table: str = "") -> Any:
    """Return a frozen dataclass made of the options of a table.

    Args:
        kind: The dataclass; a field is a text, a whole number, a number, a truth, a tuple of texts, a `Literal` of
            texts, another dataclass (a table), or one of these or None.
        content: The options; what they leave out keeps the dataclass's default.
        subject: What an error is about.
        table: The table's name in an error; empty for the file itself.

    Raises:
        ExchangeError: An option is unknown, missing, of the wrong type or out of its range.
    """
    kinds = typing.get_type_hints(kind)
    place = f" in [{table}]" if table else ""
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in kinds:
            known = ", ".join(kinds)
            raise ExchangeError(subject, f"there is no option {name[:_SHOWN]!r}{place}", f"there are {known}")
        values[name] = _converted(kinds[name], value, name, subject, place)
    needed = [
        option.name
        for option in dataclasses.fields(kind)
        if option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in values]
    if missing:
        raise ExchangeError(subject, f"{missing[0]} is missing{place}", "write it")
    try:
        return kind(**values)
    except ExchangeError as error:
        # Ranges are checked by the dataclass itself, which does not know where its options come from.
        raise ExchangeError(subject, f"{error.cause}{place}", error.remedy) from error


def _converted(kind: Any, value: object, name: str, subject: str, place: str) -> object:
    # A `Literal` or None is typing's kind of union, a type or None the language's.
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    choices = typing.get_args(kind) if is_union else (kind,)
    for choice in choices:
        origin = typing.get_origin(choice)
        if dataclasses.is_dataclass(choice):
            if not isinstance(value, dict):
                raise ExchangeError(subject, f"{name!r} is a table of options", f"write [{name}] and its options below")
            return filled(choice, value, subject, name)
        if origin is typing.Literal and value in typing.get_args(choice):
            return value
        if origin is tuple and isinstance(value, list) and all(type(item) is str for item in value):
            return tuple(value)
        if choice is float and isinstance(value, int | float) and type(value) is not bool:
            with contextlib.suppress(OverflowError):  # TOML's whole numbers have no end
                return float(value)
        if isinstance(choice, type) and type(value) is choice:
            return value
    wanted = [
        " or ".join(typing.get_args(choice))
        if typing.get_origin(choice) is typing.Literal
        else "a list of texts"
        if typing.get_origin(choice) is tuple
        else {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}[choice.__name__]
        for choice in choices
        if choice is not type(None)
    ]
    raise ExchangeError(subject, f"{name} can't be {repr(value)[:_SHOWN]}{place}", f"use {' or '.join(wanted)}")
