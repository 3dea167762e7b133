"""What is known of a case besides its picture reaches its risk, whether it is asked by row or by image."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classifiers import cases
from classifiers.cases import Source, classify_source
from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from embedder.findings import Box
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig

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
