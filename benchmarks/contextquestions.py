"""What `benchmarks.context` asks: each question in one fold, of vectors made of what a frozen network sees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from classifiers.asymmetry import UNLIKENESS, differences, mirrored_findings, opposite_images, spread_rows, unlikeness
from classifiers.fitted import ClassifierConfig, FittedClassifiers, fit_classifiers
from classifiers.folds import Fold, patient_folds
from classifiers.heads import HeadConfig
from classifiers.labels import encode_labels
from classifiers.risk import RiskConfig, fit_risk
from classifiers.views import Fusion, fuse_probabilities, fuse_vectors, view_groups
from embedder.embedding import Embedder, pretrained_model
from embedder.findings import patient_key
from embedder.handcrafted import feature_names
from embedder.network import Descriptors, NetworkConfig
from embedder.preparation import DESCRIPTOR_GROUPS
from embedder.recipe import Recipe
from embedder.rois import CropStore, load_crops
from index.metrics import retrieval_scores

Vectors = npt.NDArray[np.float64]

SIZES = {"finding": (), "breast": ("preparation.height=288", "preparation.width=192")}
COMPARED = {
    "finding": ("intensity.mean", "intensity.std"),
    "breast": ("density.share_above_50", "intensity.mean", "intensity.std"),
}
"""Descriptors whose difference to the other side is context, chosen before anything was measured."""

LAYER, NEW_WOMEN = 64, 10
"""Dimensions of the trained embedding layer; women of each class that it has to leave for the risk."""

FUSIONS: tuple[Fusion, ...] = ("mean", "log-odds")

CONTEXTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "finding": {
        "risk": (),
        "risk with density": ("density",),
        "risk with asymmetry": (UNLIKENESS, *(f"{UNLIKENESS} of {name}" for name in COMPARED["finding"])),
        "risk with density and asymmetry": (
            "density", UNLIKENESS, *(f"{UNLIKENESS} of {name}" for name in COMPARED["finding"])
        ),
        "risk with a reader's lesion type": ("lesion_type",),
    },
    "breast": {
        "risk": (),
        "risk with density": ("density",),
        "risk with asymmetry": (UNLIKENESS, *(f"{UNLIKENESS} of {name}" for name in COMPARED["breast"])),
    },
}  # fmt: skip
"""Columns of the context by granularity and variant."""


@dataclass(frozen=True, eq=False)
class Images:
    """All rows of one granularity, as the frozen network and the descriptors see them.

    Args:
        frame: The manifest's rows, with the columns of asymmetry.
        pixels: (n, d) the network's vectors, unit length.
        described: (n, descriptors).
    """

    frame: pd.DataFrame
    pixels: Vectors
    described: Vectors

    def vectors(self, train: npt.NDArray[np.int64], weight: float) -> Vectors:
        """Return (n, dimensions) vectors; with a weight of 0 the network's alone, else descriptors fused with them.

        Args:
            train: Rows that standardise the descriptors.
            weight: Share of a similarity that the descriptors have.
        """
        vectors = self.pixels
        if weight:
            beside = Descriptors(self.described.shape[1], NetworkConfig().fusion_components)
            given = torch.from_numpy(self.described.astype(np.float32))
            beside.fit(given[train])
            vectors = np.hstack([(1 - weight) ** 0.5 * vectors, weight**0.5 * beside(given).double().numpy()])
        # The rows span few dimensions. A rotation into these changes no cosine, and so no vote and no head.
        return vectors @ np.linalg.qr(vectors.T)[0]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What one variant says of some rows.

    Args:
        rows: (q,) positions in the manifest's rows.
        probabilities: (q, classes).
        retrieval: (q rows) retrieval scores, where the variant retrieves in its own way.
    """

    rows: npt.NDArray[np.int64]
    probabilities: Vectors
    retrieval: pd.DataFrame | None = None


Question = Callable[[Vectors, pd.DataFrame, str, Fold, int], dict[str, Predicted]]


def see(frame: pd.DataFrame, granularity: str, work: Path) -> Images:
    """Read and embed all rows of a granularity, once, and compare each with the other breast.

    Args:
        frame: A manifest of findings and breasts.
        granularity: Which rows.
        work: Folder for the frozen model.
    """
    groups = DESCRIPTOR_GROUPS[granularity]
    named = ", ".join(f'"{group}"' for group in groups)
    recipe = Recipe.default(granularity).with_settings((*SIZES[granularity], f"preparation.descriptors=[{named}]"))
    plain = recipe.with_settings(("preparation.descriptors=[]",))
    place = work / f"frozen-{granularity}"
    pretrained_model(place, plain.network, plain.preparation)
    embedder = Embedder.load(place, device="cpu")

    def embedded(rows: pd.DataFrame) -> tuple[CropStore, Vectors]:
        crops = load_crops(rows, recipe.preparation)
        return crops, embedder.embed_store(crops).astype(np.float64)

    own = frame[frame["granularity"] == granularity].reset_index(drop=True)
    crops, pixels = embedded(own)
    own = crops.frame
    names = feature_names(granularity, groups)
    compared = [names.index(name) for name in COMPARED[granularity]]
    if granularity == "finding":
        others, seen = embedded(mirrored_findings(own, frame[frame["granularity"] == "breast"]))
        ids = others.frame["row_id"].tolist()
        beside = spread_rows(seen, ids, own["row_id"].tolist())
        described = spread_rows(others.descriptors, ids, own["row_id"].tolist())
    else:
        places = opposite_images(own, own)
        beside, described = (
            np.where(places[:, None] >= 0, values.astype(np.float64)[places], np.nan)
            for values in (pixels, crops.descriptors)
        )
    more = differences(crops.descriptors[:, compared], described[:, compared], COMPARED[granularity])
    own = pd.concat([own, more], axis=1).assign(**{UNLIKENESS: unlikeness(pixels, beside)})
    return Images(own, pixels, crops.descriptors.astype(np.float64))


def ask_density(vectors: Vectors, frame: pd.DataFrame, label: str, fold: Fold, seed: int) -> dict[str, Predicted]:
    """Ask with one breast and with both of a woman."""
    labels, keys = frame[label].to_numpy(dtype=object), patient_key(frame).to_numpy(dtype=object)
    groups = view_groups(frame, "woman")
    both = fuse_vectors(vectors, groups)
    first = np.unique(groups, return_index=True)[1]  # one row stands for each woman
    ours = np.setdiff1d(groups[fold.train], [])
    single = _fit(vectors[fold.train], labels[fold.train], keys[fold.train], seed)
    fused = _fit(both[ours], labels[first[ours]], keys[first[ours]], seed)
    found: dict[str, Predicted] = {}
    order = encode_labels(labels)[0]
    local = np.unique(groups[fold.test], return_inverse=True)[1]

    def keep(name: str, fitted: FittedClassifiers, queries: Vectors, gallery: Vectors, rows: Any) -> None:
        retrieved = retrieval_scores(queries, labels[fold.test], keys[fold.test], gallery, labels[rows], keys[rows])
        for title, part in (("kNN vote", fitted.knn), ("linear head", fitted.head)):
            assert part is not None, "every fold has women of each density"
            values = part.predict(queries)[1][:, [fitted.classes.index(term) for term in order]]
            found[f"{title}: {name}"] = Predicted(fold.test, values, retrieved)

    keep("one breast", single, vectors[fold.test], vectors[fold.train], fold.train)
    keep("both breasts, vectors of the query", single, both[groups[fold.test]], vectors[fold.train], fold.train)
    keep("both breasts, vectors of query and gallery", fused, both[groups[fold.test]], both[ours], first[ours])
    for title in ("kNN vote", "linear head"):
        values = found[f"{title}: one breast"].probabilities
        for how in FUSIONS:
            told = fuse_probabilities(values, local, how)[local]
            found[f"{title}: both breasts, {how} of probabilities"] = Predicted(fold.test, told)
    return found


def ask_pathology(vectors: Vectors, frame: pd.DataFrame, label: str, fold: Fold, seed: int) -> dict[str, Predicted]:
    """Ask the vote, the head, and the risk with more and more context."""
    labels, keys = frame[label].to_numpy(dtype=object), patient_key(frame).to_numpy(dtype=object)
    labels = two_classes(labels)
    fitted = _fit(vectors[fold.train], labels[fold.train], keys[fold.train], seed)
    assert fitted.head is not None, "every fold has women with a cancer and without"
    parts = {"knn": fitted.knn.predict(vectors[fold.test]), "head": fitted.head.predict(vectors[fold.test])}
    found = {title: Predicted(fold.test, parts[name][1]) for title, name in _TITLES.items()}
    raw = {name: values[0] for name, values in parts.items()}
    for title, columns in CONTEXTS[str(frame["granularity"].iloc[0])].items():
        model = fit_risk(
            fitted,
            labels[fold.train],
            keys[fold.train],
            "malignant",
            context=frame.iloc[fold.train],
            config=RiskConfig(context=columns, seed=seed),
        )
        risks = model.predict(raw, frame.iloc[fold.test])
        found[title] = Predicted(fold.test, np.stack([risks, 1 - risks], axis=1))
    return found


def ask_trained(vectors: Vectors, frame: pd.DataFrame, label: str, fold: Fold, seed: int) -> dict[str, Predicted]:
    """Ask vectors of an embedding layer that was trained on half of the gallery's women.

    Calibrations and the risk are fitted on held-out predictions of all women of the gallery, and of the others alone.
    """
    labels = two_classes(frame[label].to_numpy(dtype=object))
    keys = patient_key(frame).to_numpy(dtype=object)
    trained = fold.train[patient_folds(keys[fold.train], labels[fold.train], 2, seed)[0].train]
    embedded = embed_trained(vectors, labels, trained, seed)
    seen = np.isin(fold.train, trained)
    fitted = _fit(embedded[fold.train], labels[fold.train], keys[fold.train], seed)
    assert fitted.head is not None, "every fold has women with a cancer and without"
    parts = {"knn": fitted.knn.predict(embedded[fold.test]), "head": fitted.head.predict(embedded[fold.test])}
    found = {title: Predicted(fold.test, parts[name][1]) for title, name in _TITLES.items()}
    told = _fit(embedded[fold.train], labels[fold.train], keys[fold.train], seed, seen)
    assert told.head is not None, "every fold has women with a cancer and without"
    for title, part in (("kNN vote", told.knn), ("linear head", told.head)):
        found[f"{title} calibrated on the others"] = Predicted(fold.test, part.predict(embedded[fold.test])[1])
    config = RiskConfig(context=(), new_women_per_class=NEW_WOMEN, seed=seed)
    for title, mask in (("risk of all women", None), ("risk of the others", seen)):
        model = fit_risk(fitted, labels[fold.train], keys[fold.train], "malignant", seen=mask, config=config)
        risks = model.predict({name: values[0] for name, values in parts.items()})
        found[title] = Predicted(fold.test, np.stack([risks, 1 - risks], axis=1))
    return found


def embed_trained(vectors: Vectors, labels: npt.NDArray[Any], rows: npt.NDArray[np.int64], seed: int) -> Vectors:
    """Train an embedding layer and a head on some rows by cross-entropy, and embed all rows.

    Args:
        vectors: (n, d) of the frozen network.
        labels: (n,) of two classes.
        rows: Rows to train on.
        seed: Of the layer's first weights.

    Returns:
        (n, LAYER) unit length.
    """
    classes, codes = encode_labels(labels)
    rows = rows[codes[rows] >= 0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer, head = nn.Linear(vectors.shape[1], LAYER), nn.Linear(LAYER, len(classes))
    given, truth = torch.from_numpy(vectors).float(), torch.from_numpy(codes)
    optimiser = torch.optim.AdamW([*layer.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        logits = head(10 * functional.normalize(layer(given[rows]), dim=1))
        functional.cross_entropy(logits, truth[rows]).backward()
        optimiser.step()
    with torch.no_grad():
        return functional.normalize(layer(given).double(), dim=1).numpy()


def two_classes(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return labels of pathology as `malignant` or `other`, None where unknown."""
    return np.where(pd.isna(labels) | (labels == "malignant"), labels, "other")


_TITLES = {"kNN vote": "knn", "linear head": "head"}


def _fit(
    vectors: Vectors,
    labels: npt.NDArray[Any],
    keys: npt.NDArray[Any],
    seed: int,
    seen: npt.NDArray[np.bool_] | None = None,
) -> FittedClassifiers:
    return fit_classifiers(vectors, labels, keys, ClassifierConfig(head=HeadConfig(seed=seed), seed=seed), seen=seen)
