"""Trainings that take a GPU: the larger inputs and backbones and longer trainings that are tried, as recipe changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from classifiers.crosscalibration import CalibratedOn
from classifiers.views import Group
from embedder.recipe import Recipe

_RECIPES = Path(__file__).parent / "recipes"

FINAL = "final recipe"
"""The trial that changes nothing: what all others of its kind are compared with."""


@dataclass(frozen=True)
class Kind:
    """What trials of one kind have in common.

    Attributes:
        dataset: The data set.
        recipe: The recipe that they change, a file of `benchmarks/recipes`.
        trials: Settings by the trial's name.
        views: As of `classifiers.crossvalidation.cross_validate`.
        calibration: Likewise.
    """

    dataset: str
    recipe: str
    trials: Mapping[str, tuple[str, ...]]
    views: Mapping[str, Group] = field(default_factory=dict)
    calibration: CalibratedOn = "gallery"

    def recipe_of(self, trial: str) -> Recipe:
        """Return the recipe of a trial."""
        return Recipe.read(_RECIPES / self.recipe).with_settings(self.trials[trial])


def _size(height: int, width: int) -> tuple[str, str]:
    return f"preparation.height={height}", f"preparation.width={width}"


def _epochs(count: int) -> str:
    return f"training.epochs={count}"


_LITE2 = "network.backbone=tf_efficientnet_lite2"
_GEM = "network.pooling=gem"
_DENSITY = ('labels=["density"]', 'metric_labels=["density"]')

KINDS: dict[str, Kind] = {
    "rsna": Kind(
        "rsna",
        "rsna-breast.toml",
        {
            "generalised mean, 640 x 448, 12 epochs": (_GEM, *_size(640, 448), _epochs(12)),
            "448 x 320, 12 epochs": (*_size(448, 320), _epochs(12)),
            FINAL: (),
        },
    ),
    "breast": Kind(
        "mini-mias",
        "breast.toml",
        {
            "640 x 448, 20 epochs": (*_size(640, 448), _epochs(20)),
            "448 x 320, 30 epochs": (*_size(448, 320), _epochs(30)),
            "Lite2, 448 x 320, 15 epochs": (_LITE2, *_size(448, 320), _epochs(15)),
            "density alone, 448 x 320, 15 epochs": (*_DENSITY, *_size(448, 320), _epochs(15)),
            "descriptors into the embedding layer, 448 x 320, 15 epochs": (
                "network.fusion=embedding", *_size(448, 320), _epochs(15)
            ),
            "448 x 320, 15 epochs": (*_size(448, 320), _epochs(15)),
            "ensemble of five, by seeds": ("training.members=5", "training.members_by=seeds"),
            "30 epochs": (_epochs(30),),
            FINAL: (),
        },
        views={"density": "woman"},
    ),
    "finding": Kind(
        "mini-mias",
        "finding.toml",
        {
            "224 x 224, 60 epochs": (*_size(224, 224), _epochs(60)),
            "ensemble of five, by seeds": ("training.members=5", "training.members_by=seeds"),
            "60 epochs": (_epochs(60),),
            "Lite2": (_LITE2,),
            FINAL: (),
        },
        calibration="folds",
    ),
}  # fmt: skip
"""All kinds of trials: whole breasts of the RSNA subset, whole breasts and findings of mini-MIAS; the longest first."""
