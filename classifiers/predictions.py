"""What a fold's gallery says of its test women, query by query: all that a scorecard is made from."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifiers import ClassificationError
from classifiers.fitted import ClassifierConfig, fit_classifiers
from classifiers.folds import check_no_leak
from classifiers.labels import Array, encode_labels
from index.durable import storage_error, write_whole
from index.metrics import RECALL_LEVELS, RELEVANT, precision_at_recall, retrieval_scores
from index.records import patient_keys

PREDICTIONS_FORMAT = 2
METHODS = ("knn", "head")
BREAKDOWNS = ("lesion_type", "density")
"""Columns by whose values scores are broken down."""

_KEY_COLUMNS = ("row_id", "dataset", "patient_id", "granularity")


@dataclass(frozen=True, eq=False)
class TargetPredictions:
    """What one fold says of one label of its q queries.

    Args:
        labels: (q,) objects: the true labels, None where unknown.
        classes: The gallery's classes, in their order where they have one; empty where nothing was fitted.
        retrieval: (q rows) `index.metrics.retrieval_scores`.
        curve: (q, levels) `index.metrics.precision_at_recall`.
        probabilities: By method, (q, classes) calibrated probabilities, NaN for queries without a label.
        calibration: By method, what its calibration rests on.
        reasons: By method, why it could not be made.
    """

    labels: Array
    classes: tuple[str, ...]
    retrieval: pd.DataFrame
    curve: Array
    probabilities: dict[str, Array]
    calibration: dict[str, str]
    reasons: dict[str, str]


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """What one fold's gallery says of the findings (or breasts) of its test women.

    Args:
        granularity: `finding` or `breast`.
        gallery_rows: Rows of the gallery.
        gallery_women: Women of the gallery.
        gallery_digest: Digest of the gallery's row ids: two runs with equal ones had the same fold.
        queries: (q rows) `row_id`, `woman`, `dataset`, and the columns of BREAKDOWNS that the manifest has.
        targets: Predictions by label column.
        seed: Of the folds that this one is of.
    """

    granularity: str
    gallery_rows: int
    gallery_women: int
    gallery_digest: str
    queries: pd.DataFrame
    targets: dict[str, TargetPredictions]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the predictions as plain JSON values. They name women and outcomes: patient data."""
        content = {name: getattr(self, name) for name in ("granularity", *_GALLERY_FIELDS)}
        targets = {
            name: {
                "labels": _plain(target.labels),
                "classes": list(target.classes),
                "retrieval": {column: _plain(target.retrieval[column]) for column in target.retrieval.columns},
                "curve": [_plain(row) for row in target.curve],
                "probabilities": {
                    method: [_plain(row) for row in values] for method, values in target.probabilities.items()
                },
                "calibration": target.calibration,
                "reasons": target.reasons,
            }
            for name, target in self.targets.items()
        }
        queries = {str(column): _plain(self.queries[column]) for column in self.queries.columns}
        return {"format": PREDICTIONS_FORMAT, **content, "queries": queries, "targets": targets}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the predictions whose `to_dict` this is.

        Raises:
            ClassificationError: It is none, or a part does not fit the others.
        """
        try:
            if content["format"] != PREDICTIONS_FORMAT:
                raise ValueError(f"format {content['format']!r}")
            table = {str(name): _objects(cells) for name, cells in content["queries"].items()}
            queries = pd.DataFrame(table)
            if not {"row_id", "woman", "dataset"} <= set(table) or queries["woman"].isna().any():
                raise ValueError("queries without their women")
            targets = {str(name): _target(saved, len(queries)) for name, saved in content["targets"].items()}
            return cls(
                str(content["granularity"]),
                int(content["gallery_rows"]),
                int(content["gallery_women"]),
                str(content["gallery_digest"]),
                queries,
                targets,
                int(content["seed"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, ClassificationError) as error:
            raise ClassificationError(
                "predictions", f"their saved form cannot be read ({error})", "run the evaluation again"
            ) from error


_GALLERY_FIELDS = ("gallery_rows", "gallery_women", "gallery_digest", "seed")


def predict_fold(
    gallery_vectors: npt.ArrayLike,
    gallery_frame: pd.DataFrame,
    query_vectors: npt.ArrayLike,
    query_frame: pd.DataFrame,
    targets: Sequence[str],
    *,
    seed: int = 0,
    config: ClassifierConfig | None = None,
) -> FoldPredictions:
    """Let a gallery answer for women that it does not hold.

    Retrieval, kNN vote, linear head and both calibrations know the gallery's women only.

    Args:
        gallery_vectors: (n, d) unit length.
        gallery_frame: (n rows) of a manifest.
        query_vectors: (q, d) unit length.
        query_frame: (q rows) of the same manifest.
        targets: Label columns to predict.
        seed: Seed of the folds that this one is of, and of those within the gallery.
        config: How the classifiers are fitted; its seeds are replaced by `seed`.

    Raises:
        ClassificationError: A woman is in both, a row has no woman, rows are of two granularities, or
            arrays and frames do not fit each other.
    """
    gallery, queries = np.asarray(gallery_vectors), np.asarray(query_vectors)
    women = _women(gallery_frame, len(gallery), targets, "gallery")
    own = _women(query_frame, len(queries), targets, "queries")
    both = np.concatenate([women, own])
    check_no_leak(both, np.arange(len(women)), np.arange(len(women), len(both)))
    granularities = {*gallery_frame["granularity"], *query_frame["granularity"]}
    if len(granularities) != 1:
        raise ClassificationError(
            "fold", f"rows of {len(granularities)} granularities", "score findings and breasts apart"
        )
    if not len(queries) or not len(gallery):
        raise ClassificationError("fold", "the gallery or the queries are empty", "ask for fewer folds")
    config = config or ClassifierConfig()
    config = replace(config, seed=seed, head=replace(config.head, seed=seed))
    table = pd.DataFrame(
        {"row_id": _objects(query_frame["row_id"]), "woman": own, "dataset": _objects(query_frame["dataset"])}
    )
    for column in BREAKDOWNS:
        if column in query_frame.columns:
            table[column] = _terms(query_frame[column])
    row_ids = sorted(gallery_frame["row_id"].astype(str))
    return FoldPredictions(
        granularity=str(granularities.pop()),
        gallery_rows=len(gallery),
        gallery_women=len(set(women)),
        gallery_digest=hashlib.sha256("\n".join(row_ids).encode()).hexdigest(),
        queries=table,
        targets={
            name: _predict(gallery, _terms(gallery_frame[name]), women, queries, _terms(query_frame[name]), own, config)
            for name in targets
        },
        seed=seed,
    )


def save_predictions(path: Path, folds: Sequence[FoldPredictions]) -> None:
    """Write the folds of a run as one JSON file, whole or not at all. They are patient data.

    Raises:
        ClassificationError: It cannot be written.
    """
    write_json(path, {"format": PREDICTIONS_FORMAT, "folds": [fold.to_dict() for fold in folds]})


def load_predictions(path: Path) -> list[FoldPredictions]:
    """Read what `save_predictions` wrote.

    Raises:
        ClassificationError: There is no such file, or it is none.
    """
    content = read_json(path)
    try:
        return [FoldPredictions.from_dict(fold) for fold in content["folds"]]
    except (KeyError, TypeError) as error:
        raise ClassificationError(path, "holds no predictions", "name a file that an evaluation saved") from error
    except ClassificationError as error:
        raise ClassificationError(path, error.cause, error.remedy) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all.

    Raises:
        ClassificationError: It cannot be written.
    """
    try:
        write_whole(Path(path), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        reason = storage_error(Path(path), error)
        raise ClassificationError(path, reason.cause, reason.remedy) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ClassificationError: There is no such file, or it is no JSON object.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ClassificationError(path, f"cannot be read ({error.strerror})", "check its name") from error
    except (ValueError, RecursionError) as error:
        raise ClassificationError(path, "is no JSON file, or was cut off", "save it again") from error
    if not isinstance(content, dict):
        raise ClassificationError(path, "holds no JSON object", "name a file that an evaluation saved")
    return content


def _predict(
    gallery: Array,
    labels: Array,
    women: Array,
    queries: Array,
    asked: Array,
    own: Array,
    config: ClassifierConfig,
) -> TargetPredictions:
    sides = (queries, asked, own, gallery, labels, women)
    retrieval, curve = retrieval_scores(*sides), precision_at_recall(*sides)
    try:
        fitted = fit_classifiers(gallery, labels, women, config)
    except ClassificationError as error:
        return TargetPredictions(asked, (), retrieval, curve, {}, {}, dict.fromkeys(METHODS, error.cause))
    known = ~np.asarray(pd.isna(asked), dtype=bool)
    probabilities, calibration = {}, {}
    for method, part in zip(METHODS, (fitted.knn, fitted.head), strict=True):
        if part is not None:
            values = np.full((len(queries), len(fitted.classes)), np.nan)
            if known.any():
                values[known] = part.predict(queries[known], own[known])[1]
            probabilities[method], calibration[method] = values, part.calibration.basis_
    reasons = {"head": fitted.no_head} if fitted.no_head else {}
    return TargetPredictions(asked, fitted.classes, retrieval, curve, probabilities, calibration, reasons)


def _women(frame: pd.DataFrame, rows: int, targets: Sequence[str], subject: str) -> Array:
    """Return the women's keys of one side of a fold, or refuse the side."""
    absent = [name for name in (*_KEY_COLUMNS, *targets) if name not in frame.columns]
    if absent:
        raise ClassificationError(subject, f"the table has no column {absent[0]!r}", "use a manifest")
    if len(frame) != rows:
        raise ClassificationError(subject, f"{rows} vectors for {len(frame)} rows", "pass one per row")
    for name in _KEY_COLUMNS:
        if frame[name].isna().any():
            raise ClassificationError(subject, f"a row has no {name}", "complete the manifest")
    if frame["row_id"].duplicated().any():
        twice = frame.loc[frame["row_id"].duplicated(), "row_id"].iloc[0]
        raise ClassificationError(subject, f"the row {twice} stands twice", "name each row once")
    return patient_keys(frame)


def _target(saved: Mapping[str, Any], rows: int) -> TargetPredictions:
    labels, classes = _terms(saved["labels"]), tuple(str(name) for name in saved["classes"])
    retrieval = pd.DataFrame(
        {str(name): np.asarray(cells, dtype=np.float64) for name, cells in saved["retrieval"].items()}
    )
    retrieval[RELEVANT] = retrieval[RELEVANT].astype(np.int64)
    probabilities = {}
    for method, values in saved["probabilities"].items():
        if method not in METHODS:
            raise ValueError(f"method {method!r}")
        probabilities[method] = np.asarray(values, dtype=np.float64)
        if probabilities[method].shape != (rows, len(classes)):
            raise ValueError(f"{method} probabilities do not fit the queries")
    if len(labels) != rows or len(retrieval) != rows:
        raise ValueError("labels or scores do not fit the queries")
    texts = ({str(key): str(text) for key, text in saved[part].items()} for part in ("calibration", "reasons"))
    curve = np.asarray(saved["curve"], dtype=np.float64).reshape(rows, len(RECALL_LEVELS))
    return TargetPredictions(labels, classes, retrieval, curve, probabilities, *texts)


def _terms(values: npt.ArrayLike | pd.Series) -> Array:
    """Return labels as objects: their texts, None where missing."""
    classes, codes = encode_labels(_objects(values))
    return np.array([*classes, None], dtype=object)[codes]


def _objects(values: npt.ArrayLike | pd.Series) -> Array:
    return np.asarray(values, dtype=object)


def _plain(values: npt.ArrayLike | pd.Series) -> list[Any]:
    """Return cells as plain JSON values, None where missing."""
    return [None if pd.isna(cell) else cell for cell in np.asarray(values).tolist()]
