"""A protocol: all that a benchmark of retrieval and classification depends on, declared in one TOML file."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from classifiers import ClassificationError
from classifiers.crosscalibration import CalibratedOn
from classifiers.views import Group
from embedder.datasets import DATASETS, Progress, read_dataset
from embedder.findings import GRANULARITIES
from embedder.manifest import read_manifest
from embedder.recipe import Recipe
from embedder.trainingplan import SEEDS

Model = Literal["trained", "pretrained"]

_MOST_FOLDS = 20
_MOST_SEEDS = 20
_RESAMPLES = (100, 100_000)


@dataclass(frozen=True)
class Protocol:
    """What a benchmark measures.

    Args:
        name: What its page is called.
        dataset: The public data set to read, one of `embedder.datasets.DATASETS`; None where a manifest is named.
        manifest: The manifest to read instead.
        granularity: `finding` or `breast`.
        model: `trained` trains a fresh model in every fold, `pretrained` takes the recipe's backbone as it is.
        recipe: How each fold's model is made.
        labels: Label columns to score; None for the usual ones, see `classifiers.targets`.
        views: By label, what is asked together, its vectors averaged: the views of a `lesion`, a `breast` or a `woman`;
            each row is asked alone for a label that is not named.
        folds: Folds of women.
        fold_column: Column of the manifest that says in which fold a row is tested; None splits the women.
        calibration: On whom probabilities are calibrated: the women of each fold's own `gallery`, whom a trained
            embedder has seen, or those of the other `folds`, see `classifiers.crosscalibration`.
        seeds: Of folds and models: the benchmark is run with each, and figures are means over them.
        resamples: Bootstrap resamples of the women.

    Raises:
        ClassificationError: Options contradict each other or are out of range.
    """

    name: str
    dataset: str | None = None
    manifest: Path | None = None
    granularity: str = "finding"
    model: Model = "trained"
    recipe: Recipe = field(default_factory=Recipe)
    labels: tuple[str, ...] | None = None
    views: Mapping[str, Group] = field(default_factory=dict)
    folds: int = 5
    fold_column: str | None = None
    calibration: CalibratedOn = "gallery"
    seeds: tuple[int, ...] = (0,)
    resamples: int = 2000

    def __post_init__(self) -> None:
        low, high = _RESAMPLES
        checks = {
            "name it": bool(self.name.strip()),
            "name either a dataset or a manifest": (self.dataset is None) != (self.manifest is None),
            f"dataset is {', '.join(DATASETS)}": self.dataset is None or self.dataset in DATASETS,
            f"granularity is {' or '.join(GRANULARITIES)}": self.granularity in GRANULARITIES,
            "the recipe's preparation has the same granularity": self.recipe.preparation.granularity
            == self.granularity,
            f"model is {' or '.join(get_args(Model))}": self.model in get_args(Model),
            "labels are left out, or one or more": self.labels is None or len(self.labels) > 0,
            f"views are each {', '.join(get_args(Group))}": all(
                view in get_args(Group) for view in self.views.values()
            ),
            f"calibration is {' or '.join(get_args(CalibratedOn))}": self.calibration in get_args(CalibratedOn),
            f"folds is 2 to {_MOST_FOLDS}": 2 <= self.folds <= _MOST_FOLDS,
            f"seeds are 1 to {_MOST_SEEDS} different numbers from 0": 1
            <= len(set(self.seeds))
            == len(self.seeds)
            <= _MOST_SEEDS
            and all(0 <= seed < SEEDS for seed in self.seeds),
            f"resamples is {low} to {high}": low <= self.resamples <= high,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ClassificationError("protocol", f"an option is out of range: {rule}")

    @classmethod
    def read(cls, path: Path) -> "Protocol":
        """Read a protocol file.

        Its options are the attributes of this class. `recipe` is a TOML file beside it, or a table; `settings` is a
        list of changes to the recipe, as `mammoseek train --set` takes them.

        Raises:
            ClassificationError: It can't be read, or an option is unknown, of the wrong type or out of range.
            ModelError: The recipe can't be read.
        """
        path = Path(path)
        try:
            content = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ClassificationError(path, f"can't be read as a TOML protocol ({error})") from error
        try:
            return cls._from_options(content, path)
        except ClassificationError as error:
            raise ClassificationError(path, error.cause, error.remedy) from error

    @classmethod
    def _from_options(cls, content: Mapping[str, Any], path: Path) -> "Protocol":
        known = {option.name: option for option in dataclasses.fields(cls)}
        for name, value in content.items():
            if name not in (*known, "settings"):
                raise ClassificationError(
                    "protocol", f"there is no option {name[:80]!r}", f"there are {', '.join(known)}"
                )
            wanted, holds = _kinds(name, value)
            if not holds:
                raise ClassificationError("protocol", f"{name} is not {wanted}")
        if "name" not in content:
            raise ClassificationError("protocol", "has no name", 'write name = "..."')
        granularity = content.get("granularity", "finding")
        if granularity not in GRANULARITIES:
            raise ClassificationError("protocol", f"granularity {granularity!r} is not {' or '.join(GRANULARITIES)}")
        given = content.get("recipe", {})
        recipe = (
            Recipe.read(path.parent / given, granularity)
            if isinstance(given, str)
            else Recipe.from_options(given, granularity, str(path))
        )
        options = {name: value for name, value in content.items() if name not in ("settings", "recipe", "manifest")}
        options |= {name: tuple(options[name]) for name in ("labels", "seeds") if name in options}
        if "manifest" in content:
            options["manifest"] = path.parent / content["manifest"]
        return cls(**options, recipe=recipe.with_settings(content.get("settings", ())))

    def read_rows(self, data: Path | None, *, progress: Progress | None = None) -> pd.DataFrame:
        """Return the manifest that the protocol names, with absolute paths.

        Args:
            data: Folder of the data set; not for a protocol with a manifest.
            progress: Called with files done and files in all.

        Raises:
            ClassificationError: The data set's folder is not named, or a manifest's is.
            MammoseekError: It can't be read.
        """
        if self.manifest is not None:
            if data is not None:
                raise ClassificationError("protocol", "names a manifest, and so needs no folder of a data set")
            return read_manifest(self.manifest)
        assert self.dataset is not None
        if data is None:
            raise ClassificationError("protocol", f"is of the data set {self.dataset}", "name its folder by --data")
        return read_dataset(self.dataset, data, progress=progress).frame

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain JSON values, with no path of this machine."""
        options = {option.name: getattr(self, option.name) for option in dataclasses.fields(self)}
        options["recipe"] = self.recipe.to_dict()
        options["manifest"] = self.manifest.name if self.manifest is not None else None
        return dict(json.loads(json.dumps(options)))  # tuples are lists there, and what is read back is equal


def _kinds(name: str, value: object) -> tuple[str, bool]:
    """Return what an option should be, and whether it is."""
    if name in ("folds", "resamples"):
        return "a whole number", type(value) is int
    if name == "seeds":
        return "a list of whole numbers", isinstance(value, list) and all(type(seed) is int for seed in value)
    if name in ("labels", "settings"):
        return "a list of texts", isinstance(value, list) and all(isinstance(item, str) for item in value)
    if name == "views":
        return "a table of texts", isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if name == "recipe":
        return "the name of a file or a table", isinstance(value, str | dict)
    return "a text", isinstance(value, str)
