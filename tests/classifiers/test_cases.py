"""What is known of a case besides its picture reaches its risk, whether it is asked by row or by image."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classifiers import ClassificationError, cases
from classifiers.cases import Source, classify_source
from classifiers.classification import classify
from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from embedder.findings import Box
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from index.gallery import Gallery

WOMEN = 44


@pytest.fixture(scope="module")
def frame(synthetic_manifest: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """44 women, older where malignant; the age of every fifth is unknown."""
    women = np.arange(WOMEN)
    ages = np.where(women % 5 == 4, np.nan, 45.0 + 12 * (women // 2 % 2) + women % 7)
    return synthetic_manifest(WOMEN, age=ages, density=np.array(["fatty", "dense"], dtype=object)[women % 2])


@pytest.fixture(scope="module")
def gallery(
    frame: pd.DataFrame,
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    pretrained_model(folder / "model", tiny_network, tiny_preparation)
    new_gallery(frame, folder / "model", folder / "gallery")
    return folder / "gallery"


def classified(gallery: Path, **source: object) -> cases.Classification:
    (found,) = classify_source(gallery, Source(**source), targets=("pathology",)).targets  # type: ignore[arg-type]
    return found


def test_a_row_and_its_image_have_one_context(gallery: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    row = frame.iloc[3]
    place = {"box": Box(13, 48, 37, 72)}
    by_row = classified(gallery, row_id=row["row_id"])
    by_image = classified(gallery, path=Path(row["path"]), **place)
    assert by_row.risk is not None
    assert by_image.risk is not None
    assert by_row.replay["context"] == by_image.replay["context"] == {"age": row["age"], "density": "dense"}
    assert by_row.risk.parts["age"] > 0.1
    assert by_row.risk.parts["age"] == pytest.approx(by_image.risk.parts["age"])
    assert by_row.risk.women == WOMEN - 1
    assert "none of whom the embedder was trained on" in by_row.risk.basis
    # Another file of hers is an image of which nobody knows anything.
    copy = Path(shutil.copy(row["path"], tmp_path / "copy.png"))
    unknown = classified(gallery, path=copy, patient=row["patient_id"], spacing_mm=0.4, view="CC", **place)
    assert unknown.replay["context"] == {"age": None, "density": None}
    assert unknown.risk is not None
    assert unknown.risk.parts["age"] != by_row.risk.parts["age"]


def test_the_risk_knows_whom_the_embedder_was_trained_on(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "trained_on", lambda card, keys: np.ones(len(keys), np.bool_))
    found = classified(gallery, row_id="w0-0").risk
    assert found is not None
    assert "it may be too sure (of others, 0 women with malignant, 20 are needed)" in found.basis


def test_several_views_are_classified_by_the_mean_of_their_vectors(gallery: Path, frame: pd.DataFrame) -> None:
    stored = Gallery.open(gallery)
    one, two = (stored.position(name) for name in ("w3-0", "w6-0"))
    mean = stored.matrix[[one, two]].astype(np.float64).mean(axis=0)
    keys = {stored.patient_key(one), stored.patient_key(two)}
    expected = classify(
        stored, mean / np.linalg.norm(mean), target="pathology", patient_keys=keys, context=stored.record(one)
    )
    rows = [Source(row_id="w3-0"), Source(row_id="w6-0")]
    found = classify_source(gallery, rows[0], further=rows[1:], targets=("pathology",))
    assert found.targets[0].knn == expected.knn
    assert found.targets[0].head == expected.head
    assert found.to_dict()["further"] == [{"path": None, "box": None, "row_id": "w6-0"}]
    # What the first view does not know, the second may.
    assert found.targets[0].replay["context"] == {"age": frame["age"][3], "density": "dense"}
    unknown = classify_source(gallery, Source(row_id="w4-0"), further=rows[:1], targets=("pathology",))
    assert unknown.targets[0].replay["context"] == {"age": frame["age"][3], "density": "fatty"}
    # One view after another, as images.
    places = [Source(path=Path(path), box=Box(13, 48, 37, 72)) for path in frame["path"].iloc[[3, 6]]]
    shown = classify_source(gallery, places[0], further=places[1:], targets=("pathology",)).targets[0]
    assert shown.knn.probabilities == pytest.approx(expected.knn.probabilities, abs=1e-3)
    with pytest.raises(ClassificationError, match="use one kind only"):
        classify_source(gallery, places[0], further=rows[:1])
