"""A model of weakly labelled images on disk, bound to its patch embedder, and what it says of one mammogram."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load, save

from classifiers import ClassificationError
from classifiers.calibration import Calibration
from classifiers.labels import Array
from classifiers.weaklabels import (
    CLASSES,
    Progress,
    by_woman,
    calibrated,
    fit_weak,
    is_cancer,
    load_bags,
    score_images,
    training_rows,
)
from embedder.cards import card_bytes, card_checksum
from embedder.checkpoint import (
    ModelError,
    code_version,
    image_digests,
    load_model,
    read_card,
    save_model,
    woman_digest,
    write_atomically,
)
from embedder.devices import choose_device
from embedder.findings import patient_key
from embedder.heatmap import draw_heat_map
from embedder.mammogram import read_mammogram
from embedder.manifest import manifest_digest
from embedder.places import Place, find_places
from embedder.tiles import Bag, TileConfig, TileEmbedder
from embedder.weakrecipe import WeakRecipe
from embedder.weakscorers import Scorer, ScorerConfig, make_scorer, scorer_inputs
from errors import MammoseekError

WEIGHTS_FILE = "weak.safetensors"
CARD_FILE = "weak.json"
EMBEDDER_FOLDER = "embedder"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class WeakAnswer:
    """What a model says of one mammogram.

    Attributes:
        path: The image.
        probability: Calibrated, of a cancer in the imaged breast.
        places: Where the evidence is, best first.
        bag: Its tiles.
        evidence: float32 (cells,), each tile's share in the score.
        attention: float32 (cells,), each tile's share of the attention; they add up to 1.
        notes: What the reader should know.
    """

    path: Path
    probability: float
    places: list[Place]
    bag: Bag
    evidence: Array
    attention: Array
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain values, without the tiles."""
        places = [place.to_dict() for place in self.places]
        return {"path": str(self.path), "probability": self.probability, "places": places, "notes": list(self.notes)}


def train_weak(
    frame: pd.DataFrame,
    model: Path,
    output: Path,
    recipe: WeakRecipe | None = None,
    *,
    work: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on images that say only whether there is a cancer, and write the model with a copy of its patch embedder.

    Women of the split `test` are left out. The card's figures are of cross-fitted scores: each woman's images are
    scored by networks that have not seen her.

    Args:
        frame: A manifest with absolute paths.
        model: Folder of the patch embedder.
        output: Folder to write.
        recipe: How it is made; our defaults unless given.
        work: Folder that keeps the tiles' features; None for a temporary one.
        device: Where to embed.
        workers: Threads that read images.
        progress: Called with items done, items in all and what is done.

    Returns:
        The model's card.

    Raises:
        ClassificationError: There are fewer than two women of a class, or the patch embedder was trained on one.
        ModelError: The output folder holds another model, or can't be written.
    """
    recipe = recipe or WeakRecipe()
    rows = training_rows(frame)
    if (output / CARD_FILE).exists():
        raise ModelError(output, "holds a model already", "choose another folder, or delete this model first")
    with ExitStack() as stack:
        folder = work or Path(stack.enter_context(TemporaryDirectory()))
        bags = load_bags(rows, model, recipe.tiles, folder, device=device, workers=workers, progress=progress)
        positive, keys = is_cancer(bags.frame), patient_key(bags.frame).to_numpy(dtype=object)
        features = int(bags.features(0).shape[1])

        def told(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total, "Training")

        inputs = scorer_inputs(bags, recipe.scorer.method)
        fitted = fit_weak(inputs, positive, keys, features, recipe.scorer, progress=told)
    held_out = 1 / (1 + np.exp(-fitted.held_out))
    figures = {
        level: score_images(*scored)["auc"].to_dict()
        for level, scored in (("image", (positive, held_out, keys)), ("woman", by_woman(positive, held_out, keys)))
    }
    network, card, digest = load_model(model)
    weights = save({name: value.contiguous() for name, value in fitted.scorer.state_dict().items()})
    content: dict[str, Any] = {
        "format": FORMAT,
        "weights": hashlib.sha256(weights).hexdigest(),
        "embedder": digest,
        "features": features,
        "tiles": recipe.tiles.to_dict(),
        "scorer": recipe.scorer.to_dict(),
        "calibration": fitted.calibration.to_dict(),
        "data": {
            "datasets": sorted({str(name) for name in bags.frame["dataset"]}),
            "manifest_digest": manifest_digest(rows),
            "images": len(positive),
            "images_with_cancer": int(positive.sum()),
            "women": len(set(keys.tolist())),
            "left_out": [list(failure) for failure in bags.failures],
        },
        "figures": {"auc of cross-fitted scores": figures},
        "women": sorted({woman_digest(key) for key in keys}),
        "images": sorted(set(image_digests(bags.frame["path"]).values())),
        "code_version": code_version(),
    }
    save_model(output / EMBEDDER_FOLDER, network.state_dict(), card)
    write_atomically(output / WEIGHTS_FILE, weights)
    write_atomically(output / CARD_FILE, card_bytes(content))
    return {**content, "checksum": card_checksum(content)}


def read_weak_card(folder: Path) -> dict[str, Any]:
    """Read a model's card.

    Raises:
        ModelError: No model, a damaged card, or one of a newer version.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise ModelError(
            folder, f"is no model of whole images: it has no {CARD_FILE}", "make one by `mammoseek weak train`"
        )
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise ModelError(path, f"is of format {content['format']}, this version reads {FORMAT}", "update mammoseek")
        if content["checksum"] != card_checksum(content):
            raise ValueError("its checksum does not match: it was changed after it was written")
    except MammoseekError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        cause = f"is damaged ({type(error).__name__}: {error})"
        raise ModelError(path, cause, "copy the model again from its source") from error
    return dict(content)


class WeakModel:
    """A model of weakly labelled images, ready to score.

    Args:
        scorer: What scores the tiles.
        calibration: Of its probabilities.
        embedder: The patch embedder.
        images: Digests of the images it was trained on.
        share: Share of these that show a cancer.
    """

    def __init__(
        self, scorer: Scorer, calibration: Calibration, embedder: TileEmbedder, images: frozenset[str], share: float
    ) -> None:
        self.scorer, self.calibration, self.embedder, self.images = scorer, calibration, embedder, images
        self.share = share

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "WeakModel":
        """Load a model and its patch embedder from its folder.

        Raises:
            ModelError: No model, a damaged one, or another patch embedder than it was trained with.
        """
        card = read_weak_card(folder)
        found = read_card(folder / EMBEDDER_FOLDER)[1]
        if found != card["embedder"]:
            cause = f"is another patch embedder ({found[:12]}) than it was trained with ({card['embedder'][:12]})"
            raise ModelError(folder / EMBEDDER_FOLDER, cause, "copy the model again, all of its files")
        network, embedder_card, _ = load_model(folder / EMBEDDER_FOLDER)
        path = folder / WEIGHTS_FILE
        try:
            weights = path.read_bytes()
        except OSError as error:
            raise ModelError(
                path, f"can't be read ({error.strerror})", "copy the model again, all of its files"
            ) from error
        if hashlib.sha256(weights).hexdigest() != card["weights"]:
            raise ModelError(path, "and its card do not belong together", "copy the model again, all of its files")
        try:
            tiles = TileConfig.from_dict(card["tiles"])
            scorer = make_scorer(int(card["features"]), ScorerConfig.from_dict(card["scorer"]))
            scorer.load_state_dict(load(weights))
            calibration = _calibration(card["calibration"])
            images = frozenset(card["images"])
            share = float(card["data"]["images_with_cancer"]) / float(card["data"]["images"])
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, MammoseekError) as error:
            raise ModelError(folder, f"can't be used by this version ({error})", "update mammoseek") from error
        embedder = TileEmbedder(network.to(choose_device(device)), embedder_card.preparation, tiles)
        return cls(scorer, calibration, embedder, images, share)

    def score_all(self, paths: Sequence[Path], **options: Any) -> tuple[list[WeakAnswer], list[tuple[str, str]]]:
        """Score mammograms one by one.

        Args:
            paths: The images.
            options: As `score` takes them.

        Returns:
            The answers, and path and message of those that failed.
        """
        answers, failures = [], []
        for path in paths:
            try:
                answers.append(self.score(path, **options))
            except MammoseekError as error:
                failures.append((str(path), str(error)))
        return answers, failures

    def score(
        self,
        path: Path,
        *,
        spacing_mm: float | None = None,
        view: str | None = None,
        frame: int | None = None,
        allow_for_processing: bool = False,
        most: int = 5,
    ) -> WeakAnswer:
        """Score one mammogram, and say where to look.

        Args:
            path: The image.
            spacing_mm: Millimetres per pixel where the file does not say.
            view: The view where the file does not say.
            frame: Which image of a multi-frame file, counted from 1; None where there is only one.
            allow_for_processing: Take For Processing images too, see `read_mammogram`.
            most: Places at most.

        Raises:
            ClassificationError: The model was trained on this image.
            MammoseekError: The image can't be read.
        """
        mammogram = read_mammogram(path, frame=frame, allow_for_processing=allow_for_processing)
        if image_digests([str(path)]).get(str(path)) in self.images:
            raise ClassificationError(
                path,
                "the model was trained on this image, so its answer would be no answer",
                "ask with another woman's",
            )
        bag = self.embedder.bag(
            mammogram.pixels, spacing_mm=spacing_mm or mammogram.spacing_mm, view=view or mammogram.view
        )
        logit, evidence, attention = self.scorer.explain(bag.features)
        probability = float(calibrated(self.calibration, np.array([logit]))[0])
        places = find_places(bag, evidence, attention, most)
        prior = f"{self.share:.0%} of the images that it was trained on show a cancer: where fewer do, it says too much"
        notes = (self.calibration.basis_, prior, *mammogram.notes)
        return WeakAnswer(Path(path), probability, places, bag, evidence, attention, notes)


def draw_answer(
    answer: WeakAnswer, picture: Path, *, frame: int | None = None, allow_for_processing: bool = False
) -> None:
    """Draw the evidence of an answer over its mammogram.

    Args:
        answer: The answer.
        picture: The file to write; its ending names the format.
        frame: As it was asked with.
        allow_for_processing: As it was asked with.

    Raises:
        MammoseekError: The image can't be read, or the picture can't be written.
    """
    mammogram = read_mammogram(answer.path, frame=frame, allow_for_processing=allow_for_processing)
    heading = f"probability of a cancer {answer.probability:.2f}: research only, no diagnosis"
    draw_heat_map(mammogram.pixels, answer.bag, answer.evidence, answer.places, picture, heading=heading)


def _calibration(saved: Mapping[str, Any]) -> Calibration:
    """Return the calibration whose `to_dict` this is."""
    calibration = Calibration()
    calibration.classes_ = CLASSES
    calibration.method_, calibration.basis_ = str(saved["method"]), str(saved["basis"])
    calibration.sharpness_ = 1 / float(saved["temperature"])
    calibration.bias_ = np.array([float(saved["bias"][name]) for name in CLASSES])
    calibration.women_, calibration.findings_ = int(saved["women"]), int(saved["findings"])
    return calibration
