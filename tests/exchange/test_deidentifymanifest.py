from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from embedder.manifest import read_manifest
from exchange import ExchangeError
from exchange.deidentify import FAILED, THERE, WRITTEN, DeidentifyConfig
from exchange.deidentifymanifest import deidentify_manifest
from exchange.pseudonyms import PseudonymKey

KEY = PseudonymKey(b"k" * 32)
Writer = Callable[..., Path]


@pytest.fixture
def planted_manifest(write_dicom: Writer, ramp: np.ndarray, tmp_path: Path) -> Path:
    """A manifest of a PNG, a JPEG, a DICOM and a TIFF file of two women, identifiers in names, cells and files."""
    text = PngInfo()
    text.add_text("Patient", "plant")
    Image.fromarray(ramp * 3).save(tmp_path / "plant-0.png", pnginfo=text)
    Image.fromarray((ramp >> 4).astype(np.uint8)).save(tmp_path / "plant-1.jpg", comment="plant")
    write_dicom(ramp, bits=12, name="plant-2.dcm", PatientName="plant", PatientID="plant-7", StudyInstanceUID="1.2.9")
    Image.fromarray(ramp).save(tmp_path / "plant-3.tiff")
    rows = [
        {
            "row_id": f"plant-{at}",
            "path": path,
            "granularity": "finding",
            "dataset": "clinic",
            "patient_id": woman,
            "x0": 1,
            "y0": 2,
            "x1": 30,
            "y1": 40,
            "lesion_type": "mass",
            "pathology": "benign",
            "study_id": study,
            "age": age,
            "native_pathology": "plant said so",
            "reader": "plant",
            "batch": "b1",
        }
        for at, (path, woman, study, age) in enumerate(
            (
                ("plant-0.png", "plant-7", "plant-study", 44.5),
                ("plant-1.jpg", "plant-8", "", 97),
                ("plant-2.dcm", "plant-7", "1.2.9", ""),
                ("plant-3.tiff", "plant-8", "", ""),
                ("plant-0.png", "plant-7", "plant-study", 44.5),
            )
        )
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "plant.csv", index=False)
    return tmp_path / "plant.csv"


def test_a_manifest_and_its_images_lose_their_identity_and_keep_findings_and_pixels(
    planted_manifest: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    clean, outcomes = deidentify_manifest(planted_manifest, output, KEY, keep_columns=["batch"])
    assert [one.status for one in outcomes] == [WRITTEN, WRITTEN, WRITTEN, FAILED]
    for path in output.rglob("*"):
        assert "plant" not in str(path.relative_to(output))
        assert path.is_dir() or b"plant" not in path.read_bytes().lower()
    before, after = read_manifest(planted_manifest), read_manifest(output / "manifest.csv")
    assert len(after) == len(clean) == 4
    assert list(after["patient_id"]) == [KEY.woman("clinic", f"plant-{at}") for at in (7, 8, 7, 7)]
    assert after["row_id"].is_unique
    assert after["study_id"].isna().tolist() == [False, True, False, False]
    assert after["study_id"].iloc[2] == KEY.uid("1.2.9")
    assert after["age"].fillna(-1).tolist() == [44.5, 90.0, -1, 44.5]
    assert after["native_pathology"].isna().all()
    assert set(after["batch"]) == {"b1"}
    assert "reader" not in after.columns
    kept = before.drop(index=3).reset_index(drop=True)
    for name in ("x0", "y0", "x1", "y1", "lesion_type", "pathology", "dataset", "granularity"):
        assert after[name].tolist() == kept[name].tolist()
    for at in (0, 1):
        pixels = (np.asarray(Image.open(frame["path"].iloc[at])) for frame in (before, after))
        assert np.array_equal(*pixels)


def test_a_second_run_writes_nothing_anew_and_gives_the_same_manifest(planted_manifest: Path, tmp_path: Path) -> None:
    deidentify_manifest(planted_manifest, tmp_path / "out", KEY)
    first = (tmp_path / "out" / "manifest.csv").read_bytes()
    _, outcomes = deidentify_manifest(planted_manifest, tmp_path / "out", KEY)
    assert [one.status for one in outcomes] == [THERE, THERE, THERE, FAILED]
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == first


def test_a_named_issuer_stands_in_place_of_the_data_sets_name(planted_manifest: Path, tmp_path: Path) -> None:
    clean, _ = deidentify_manifest(planted_manifest, tmp_path / "out", KEY, DeidentifyConfig(issuer="north"))
    assert clean["patient_id"].iloc[0] == KEY.woman("north", "plant-7")


def test_a_column_that_is_not_there_and_images_that_are_all_gone_cost_one_message(
    planted_manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExchangeError, match="no column 'nothing'"):
        deidentify_manifest(planted_manifest, tmp_path / "out", KEY, keep_columns=["nothing"])
    for image in planted_manifest.parent.glob("plant-*.*"):
        image.unlink()
    with pytest.raises(ExchangeError, match="none of its images"):
        deidentify_manifest(planted_manifest, tmp_path / "out", KEY)
