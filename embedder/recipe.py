"""A recipe: all that makes a model from a manifest, as one frozen value, a TOML file, or settings on a command line."""

import contextlib
import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from embedder.checkpoint import ModelError
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.trainingplan import TrainingConfig, choose_augmentation
from errors import MammoseekError

_SHOWN = 80  # characters of a setting in an error


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Args:
        network: What the network is made of.
        preparation: What its input looks like; its granularity says whether findings or breasts are learned.
        training: How it is trained.
        labels: Label columns to make heads for; None for all that can be learned.
        metric_labels: Label columns on which the metric loss is formed; None chooses, see `embedder.training.train`.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    labels: tuple[str, ...] | None = None
    metric_labels: tuple[str, ...] | None = None

    @classmethod
    def default(cls, granularity: str) -> "Recipe":
        """Return what we advise for findings, or for whole breasts.

        Raises:
            ModelError: The granularity is unknown.
        """
        if granularity == "finding":
            return cls()
        if granularity == "breast":
            # A breast is taller than wide; three times as many breasts as findings need half the epochs.
            preparation = PreparationConfig(granularity="breast", height=224, width=160, context=1.0)
            return cls(preparation=preparation, training=TrainingConfig(epochs=15))
        raise ModelError("recipe", f"granularity {granularity!r} is unknown", "use finding or breast")

    @classmethod
    def read(cls, path: Path, granularity: str | None = None) -> "Recipe":
        """Read a recipe from a TOML file with tables `network`, `preparation` and `training`.

        Args:
            path: The file; what it leaves out keeps our defaults.
            granularity: Whose defaults; None takes what the file's `preparation` says, else `finding`.

        Raises:
            ModelError: The file can't be read, or an option is unknown, of the wrong type or out of its range.
        """
        try:
            content = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(path, f"can't be read as a TOML recipe ({error})") from error
        return cls.from_options(content, granularity, str(path))

    @classmethod
    def from_options(cls, content: Mapping[str, Any], granularity: str | None, subject: str) -> "Recipe":
        """Return a recipe of nested options, such as a TOML file holds.

        Args:
            content: The options; what they leave out keeps our defaults.
            granularity: Whose defaults; None takes what `preparation` says, else `finding`.
            subject: What an error is about.

        Raises:
            ModelError: An option is unknown, of the wrong type or out of its range.
        """
        preparation = content.get("preparation")
        said = preparation.get("granularity") if isinstance(preparation, dict) else None
        base = cls.default(str(said if said is not None else granularity or "finding"))
        return base._updated(content, subject)

    def with_settings(self, settings: Iterable[str]) -> "Recipe":
        """Return the recipe with some options set, each as `table.option=value` with the value in TOML.

        Raises:
            ModelError: An option is unknown, of the wrong type or out of its range.

        >>> Recipe().with_settings(["training.epochs=5", "network.pooling=gem"]).training.epochs
        5
        """
        recipe = self
        for setting in settings:
            recipe = recipe._updated(*_parsed(setting))
        return recipe

    def _updated(self, content: Mapping[str, Any], subject: str) -> "Recipe":
        training = content.get("training")
        if self.training.augmentation is None and isinstance(training, dict) and "augmentation" in training:
            # Options of the augmentation that the content leaves out keep what suits the granularity.
            rest = {name: value for name, value in content.items() if name == "preparation"}
            chosen = choose_augmentation(self.training, _updated(self, rest, subject).preparation)
            started = dataclasses.replace(self.training, augmentation=chosen)
            return cast(Recipe, _updated(dataclasses.replace(self, training=started), content, subject))
        return cast(Recipe, _updated(self, content, subject))

    def parts(self) -> dict[str, Any]:
        """Return the parts by the names that `embedder.training.train` takes them by."""
        return {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """Return all options as plain values."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """Return all options as TOML, the augmentation as it will be; options without a value stand as comments."""
        augmentation = choose_augmentation(self.training, self.preparation)
        chosen = dataclasses.replace(self, training=dataclasses.replace(self.training, augmentation=augmentation))
        lines: list[str] = []
        tables: list[tuple[str, Mapping[str, Any]]] = [("", chosen.to_dict())]
        while tables:
            name, values = tables.pop(0)
            lines += ["", f"[{name}]"] if name else []
            for key, value in values.items():
                if isinstance(value, dict):
                    tables.append((f"{name}.{key}" if name else key, value))
                elif value is None:
                    lines.append(f"# {key} = (chosen by itself)")
                else:
                    lines.append(f"{key} = {_toml(value)}")
        return "\n".join(lines).strip() + "\n"


def apply_setting(recipe: Any, setting: str) -> Any:
    """Return any frozen recipe with one option set, see `Recipe.with_settings`.

    Raises:
        ModelError: The option is unknown, of the wrong type or out of its range.
    """
    return _updated(recipe, *_parsed(setting))


def _parsed(setting: str) -> tuple[dict[str, Any], str]:
    """Return a setting as nested tables, and what an error calls it."""
    subject = f"setting {setting[:_SHOWN]!r}"
    name, equals, text = setting.partition("=")
    if not _is_unicode(setting):
        raise ModelError(subject, "is no Unicode text", "write it in UTF-8")
    if not equals:
        raise ModelError(subject, "has no value", "write it as training.epochs=10")
    content: Any = _literal(text.strip())
    for part in reversed(name.strip().split(".")):
        content = {part: content}
    return content, subject


def _literal(text: str) -> object:
    try:
        content = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return content["value"] if len(content) == 1 else text


def _is_unicode(text: str) -> bool:
    """Tell whether all of a text can be written: the shell passes on bytes that are no UTF-8 as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON escapes as TOML does, but for the character of the delete key.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _updated(current: Any, content: Mapping[str, Any], subject: str) -> Any:
    """Return a frozen configuration with the options of a nested table replaced, types checked."""
    kinds = typing.get_type_hints(type(current))
    changes: dict[str, Any] = {}
    for name, value in content.items():
        if name not in kinds:
            raise ModelError(subject, f"there is no option {name[:_SHOWN]!r}", f"there are {', '.join(kinds)}")
        kind = _dataclass_of(kinds[name])
        if kind is not None:
            if not isinstance(value, dict):
                raise ModelError(subject, f"{name!r} is a table of options", f"write {name}.option=value")
            held = getattr(current, name)
            changes[name] = _updated(kind() if held is None else held, value, subject)
        else:
            changes[name] = _converted(kinds[name], value, name, subject)
    try:
        return dataclasses.replace(current, **changes)
    except MammoseekError as error:
        # Ranges are checked by the configuration itself, which does not know where its options come from.
        raise ModelError(subject, error.cause, error.remedy) from error


def _dataclass_of(kind: Any) -> Any:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def _converted(kind: Any, value: object, name: str, subject: str) -> object:
    """Return a value as the kind that an option has, or refuse it."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        origin, choices = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal and value in choices:
            return value
        if origin is tuple and isinstance(value, list) and all(type(item) is choices[0] for item in value):
            return tuple(value)
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # TOML's whole numbers have no end
                return float(value)
        if isinstance(option, type) and type(value) is option:
            return value
        if option is type(None) and value in ("none", ""):
            return None
    wanted = [
        ", ".join(map(str, typing.get_args(option)))
        if typing.get_origin(option) is typing.Literal
        else getattr(option, "__name__", str(option))
        for option in options
    ]
    said = value if isinstance(value, str) else repr(value)
    shown = repr(value) if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."
    raise ModelError(subject, f"{name} can't be {shown}", f"use {' or '.join(wanted)}")
